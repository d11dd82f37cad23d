#!/usr/bin/env bash
# Sets up the environment; `./setup.sh run` then does the main job.
set -euo pipefail
cd "$(dirname "$0")"

if [ $# -gt 0 ] && [ "$1" != run ]; then
    echo "usage: ./setup.sh [run [option of 'appointments demo' ...]]" >&2
    exit 2
fi

python=${PYTHON:-$(command -v python3.11 || echo python3)}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed, found $("$python" --version). Set PYTHON=/path/to/python3.11" >&2
    exit 1
}

stamp=.venv/installed-from
if ! cmp -s requirements.lock "$stamp"; then
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    echo "Installing the locked dependencies into .venv ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
    cp requirements.lock "$stamp"
fi

if [ "${1:-}" = run ]; then
    shift
    exec .venv/bin/appointments demo "$@"
fi
echo "Ready. Next: ./setup.sh run, or .venv/bin/appointments --help"
