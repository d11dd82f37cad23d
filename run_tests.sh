#!/usr/bin/env bash
# Sets up when needed, then: lint, format, types, import rules, tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")"
./setup.sh >/dev/null
PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy
lint-imports
python -m pytest "$@"
