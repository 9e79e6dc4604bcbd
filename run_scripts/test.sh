#!/usr/bin/env bash
# The tests. Arguments go to pytest; --slow runs the long ones too.
#   bash run_scripts/test.sh [--slow] [-k NAME]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup.sh" ""
cd "$here/.."
exec "$SWIM_PYTHON" -m pytest tests "$@"
