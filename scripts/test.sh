#!/usr/bin/env bash
# Install the project with all it is tested with into .venv, if it is not there yet; then run every check.
# Arguments go to pytest: `bash scripts/test.sh tests/test_ops.py -x`. `TORCH=2.11.0 bash scripts/test.sh` runs it all
# with another torch, in an environment of its own.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment test
"$VENV/bin/python" -m ruff check .
"$VENV/bin/python" -m ruff format --check .
if [[ -z ${TORCH:-} ]]; then
    "$VENV/bin/python" -m mypy # (what torch says of its types differs from version to version)
fi
# Two processes of one thread each: the tests are many and small. The one that is done first takes over from the other.
OMP_NUM_THREADS=1 exec "$VENV/bin/python" -m pytest --numprocesses 2 --dist worksteal "$@"
