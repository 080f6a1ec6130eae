#!/usr/bin/env bash
# Everything that needs a CUDA card, in one go of under 8 minutes: bash scripts/on_card.sh FOLDER
#
# Writes into FOLDER: versions.txt, tests.txt (the tests marked cuda), benchmark.txt, and summary.md, which it also
# prints. Nothing is installed: it runs with what `python3` has (PYTHON names another). Without a card the tests are
# skipped and the benchmark is left out, so that the rest can be tried anywhere.
set -uo pipefail
cd "$(dirname "$0")/.."
folder=${1:?"usage: bash scripts/on_card.sh FOLDER"}
python=${PYTHON:-python3}
mkdir -p "$folder"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
start=$SECONDS

{
    date -u +"%Y-%m-%d %H:%M UTC"
    git rev-parse --short HEAD 2>/dev/null || true
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no card"
    "$python" -c 'import platform, torch; print("Python", platform.python_version(), "torch", torch.__version__, "CUDA", torch.version.cuda)'
} >"$folder/versions.txt" 2>&1

# Only files that hold such tests: others may need packages that are not there.
cuda_tests=$(grep -lE "mark\.cuda" tests/test_*.py)
# shellcheck disable=SC2086
timeout 240 "$python" -m pytest $cuda_tests -m cuda -q -rfE --durations=10 -p no:cacheprovider >"$folder/tests.txt" 2>&1
tests=$?
[[ $tests == 0 ]] && verdict="passed" || verdict="exit status $tests, see tests.txt"

if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    timeout 260 "$python" scripts/benchmark.py --device cuda --rounds 3 --only mlp resnet ticket gpt resnet50 \
        >"$folder/benchmark.txt" 2>&1
    measured=$?
    [[ $measured == 0 ]] || echo "(ended with exit status $measured)" >>"$folder/benchmark.txt"
else
    echo "No card: no benchmark." >"$folder/benchmark.txt"
fi

{
    cat "$folder/versions.txt"
    echo
    echo "Tests marked cuda: $verdict: $(tail -n 1 "$folder/tests.txt")"
    grep -E "^(FAILED|ERROR)" "$folder/tests.txt" | head -n 40
    echo
    cat "$folder/benchmark.txt"
    echo
    echo "$((SECONDS - start)) s in all."
} | tee "$folder/summary.md"
exit "$tests"
