#!/usr/bin/env bash
# The tests, in two processes. Arguments go to pytest; --slow runs the long ones too, -n 0 runs all in one process.
#   bash run_scripts/test.sh [--slow] [-k NAME]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup.sh" ""
cd "$here/.."
exec "$SWIM_PYTHON" -m pytest tests -n 2 --dist loadfile "$@"
