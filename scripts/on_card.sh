#!/usr/bin/env bash
# Everything that needs a CUDA card, in one go of under 8 minutes: bash scripts/on_card.sh FOLDER
#
# Writes into FOLDER, each as soon as it is known: versions.txt, tests.txt (the tests marked cuda), a file for each row of
# the benchmark, and summary.md, the table, which it also prints. Each part has its time, after which it is stopped; what
# it has written until then stays, and the next one begins. Nothing is installed: it runs with what `python3` has (PYTHON
# names another). Without a card the tests are skipped and the benchmark is left out, so that the rest can be tried
# anywhere.
set -uo pipefail
folder=${1:?"usage: bash scripts/on_card.sh FOLDER"}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
end=$((SECONDS + ${TIME:-460}))
verdict=0

# part NAME SECONDS COMMAND...: run it into NAME.txt, for so long at most, and not beyond the end of all.
part() {
    local name=$1 limit=$2 left=$((end - SECONDS))
    shift 2
    ((limit > left)) && limit=$left
    if ((limit < 5)); then
        echo "Left out: there was no time." >"$folder/$name.txt"
        verdict=124
        return
    fi
    # As if Ctrl-C was pressed: pytest then still says what has failed so far. Who does not listen is killed.
    timeout --signal=INT --kill-after=8 "$limit" "$@" >"$folder/$name.txt" 2>&1
    verdict=$?
    [[ $verdict == 0 ]] || echo "(ended with exit status $verdict after at most $limit s)" >>"$folder/$name.txt"
}

versions() {
    date -u +"%Y-%m-%d %H:%M UTC"
    git rev-parse --short HEAD 2>/dev/null || true
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no card"
    timeout 60 "$python" -c 'import platform, torch; print("Python", platform.python_version(), "torch", torch.__version__, "CUDA", torch.version.cuda)'
}

rows() { # COLUMNS: the lines of the tables with so many, of all parts of the benchmark that there are
    cat "$folder"/benchmark-*.txt 2>/dev/null | awk -F'|' -v columns="$1" 'NF == columns + 2 && !seen[$0]++'
}

versions >"$folder/versions.txt" 2>&1

# Only files that hold such tests: others may need packages that are not there.
mapfile -t cuda_tests < <(grep -lE "mark\.cuda" tests/test_*.py)
several=() jobs=$(nproc)
"$python" -c "import xdist" 2>/dev/null && several=(--numprocesses $((jobs < 6 ? jobs : 6)) --dist worksteal)
part tests 130 "$python" -m pytest "${cuda_tests[@]}" -m cuda "${several[@]}" -v -rfE --tb=short --durations=10 \
    -o faulthandler_timeout=60 -p no:cacheprovider
tests=$verdict

if timeout 60 "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    # Row, its seconds, and those after which one contestant is left out. (Some compile for most of the time.)
    while read -r row limit patience; do
        part "benchmark-$row" "$limit" "$python" scripts/benchmark.py --device cuda --quick --limit "$patience" \
            --only "$row" </dev/null
    done <<<"mlp 40 30
gpt 110 60
ticket 60 45
resnet 40 30
resnet50 150 75"
else
    echo "No card: no benchmark." >"$folder/benchmark-none.txt"
fi

{
    cat "$folder/versions.txt"
    echo
    echo "Tests marked cuda (exit status $tests): $(grep -E " in [0-9.]+s" "$folder/tests.txt" | tail -n 1 | tr -d '=')"
    grep -E "^(FAILED|ERROR)" "$folder/tests.txt" | head -n 40
    echo
    rows 6
    echo
    grep -h "^Matrix products" "$folder"/benchmark-*.txt 2>/dev/null | head -n 1
    echo
    rows 5
    echo
    grep -hE "^(No card|Left out: there|\(ended)" "$folder"/benchmark-*.txt 2>/dev/null
    echo "$SECONDS s in all."
} | tee "$folder/summary.md"
exit "$tests"
