#!/usr/bin/env bash
# Where a model looks, as pictures and a video. Without arguments: the demo's model and its text-only control.
#   bash run_scripts/visualize.sh [--model M --base B --video V --prompt "What does the <ins>dog</ins> do?" ...]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch swim visualize "$@"
