#!/usr/bin/env bash
# General ability: plain chat and questions about whole clips. Without arguments: the demo's models on plain chat.
#   bash run_scripts/eval/general.sh [--model M ... --questions FILE --output DIR ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
launch swim general "$@"
