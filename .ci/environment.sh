# Sourced by run.sh and test.sh in the repository's folder: makes .venv where it is missing, and activates it.
python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
    { echo "$(python3 --version) will not do: TensorFlow needs Python 3.11, 3.12 or 3.13" >&2; exit 1; }
[ -f .venv/bin/activate ] || python3 -m venv --clear .venv  # that file comes last: without it .venv is half made
. .venv/bin/activate
