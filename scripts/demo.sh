#!/usr/bin/env bash
# Install the project into .venv, if it is not there yet, and run the first example.
set -euo pipefail
source "$(dirname "$0")/environment.sh"
environment examples
exec "$VENV/bin/python" examples/quickstart.py "$@"
