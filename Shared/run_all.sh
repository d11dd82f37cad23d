#!/usr/bin/env bash
# The comparison, from any working directory. Arguments go to run_all.py.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python=$here/../.venv/bin/python
[ -x "$python" ] || python=${PYTHON:-$(command -v python3.11 || echo python3)}
exec "$python" "$here/run_all.py" "$@"
