#!/usr/bin/env bash
# Checks everything: style, then the tests. Makes .venv where it is missing.
set -euo pipefail
cd "$(dirname "$0")"

[ -f .venv/bin/activate ] || python3 -m venv --clear .venv  # that file comes last: without it .venv is half made
. .venv/bin/activate
pip install --quiet -r requirements.txt -r requirements-dev.txt

ruff check
ruff format --check
pytest -n 2 --dist worksteal "$@"
