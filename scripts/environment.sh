# Sourced by the other scripts: `environment EXTRA` sees to it that $VENV has the project with that extra.
#
# A stamp file there says that an extra is installed; as long as pyproject.toml and the constraints are older than
# the stamp there is nothing to do. PYTHON names the interpreter that makes the environment, which is .venv; TORCH=2.11.0
# another torch than the constraints', in an environment beside it, .venv-torch-2.11.0. VENV names yet another place.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv${TORCH:+-torch-$TORCH}}

environment() {
    local extra=$1 constraints=scripts/constraints.txt
    local stamp=$VENV/installed-$extra
    if [[ $stamp -nt pyproject.toml && $stamp -nt $constraints ]]; then
        return
    fi
    if [[ ! -x $VENV/bin/pip ]]; then
        "${PYTHON:-python3}" -m venv "$VENV"
    fi
    echo "Installing torchfunc[$extra] into $VENV ..." >&2
    if [[ -n ${TORCH:-} ]]; then
        sed "s/^torch==.*/torch==$TORCH/" "$constraints" >"$VENV/constraints.txt"
        constraints=$VENV/constraints.txt
    fi
    # (Of most files that are installed nobody needs the bytecode, which takes longer to make than to unpack them.)
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --no-compile \
        --constraint "$constraints" --editable ".[$extra]"
    touch "$stamp"
    if [[ $extra == test ]]; then
        touch "$VENV/installed-examples" # which it includes
    fi
}
