#!/usr/bin/env bash
# Install what it takes into .venv, if it is not there yet, and build the reference into a folder (build/reference by
# default). Open its index.html; nothing in it needs a network.
set -euo pipefail
folder=$(realpath -m "${1:-"$(dirname "$0")/../build/reference"}")
source "$(dirname "$0")/environment.sh"
environment docs
"$VENV/bin/python" scripts/docs.py "$folder"
echo "$folder/index.html"
