#!/usr/bin/env bash
# Checks everything: style, then the tests. Makes .venv where it is missing.
set -euo pipefail
cd "$(dirname "$0")"

. .ci/environment.sh
pip install --quiet -r requirements.txt -r requirements-dev.txt

ruff check
ruff format --check
pytest -n 2 --dist worksteal "$@"
