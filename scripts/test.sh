#!/usr/bin/env bash
# Install the project with all it is tested with into .venv, if it is not there yet; then run every check.
# Arguments go to pytest: `bash scripts/test.sh tests/test_ops.py -x`.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment test
.venv/bin/python -m ruff check .
.venv/bin/python -m ruff format --check .
.venv/bin/python -m mypy
# Two processes of one thread each: the tests are many and small. The one that is done first takes over from the other.
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest --numprocesses 2 --dist worksteal "$@"
