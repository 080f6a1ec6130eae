# Sourced by the other scripts: `environment EXTRA` sees to it that .venv has the project with that extra.
#
# A stamp file in .venv says that an extra is installed; as long as pyproject.toml and the constraints are older than
# the stamp there is nothing to do. PYTHON names the interpreter that makes .venv.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

environment() {
    local extra=$1 constraints=scripts/constraints.txt
    local stamp=.venv/installed-$extra
    if [[ $stamp -nt pyproject.toml && $stamp -nt $constraints ]]; then
        return
    fi
    if [[ ! -x .venv/bin/pip ]]; then
        "${PYTHON:-python3}" -m venv .venv
    fi
    echo "Installing torchfunc[$extra] into .venv ..." >&2
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --constraint "$constraints" --editable ".[$extra]"
    touch "$stamp"
    if [[ $extra == test ]]; then
        touch .venv/installed-examples # which it includes
    fi
}
