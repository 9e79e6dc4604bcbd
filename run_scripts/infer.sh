#!/usr/bin/env bash
# Asks a model about a video or image. Without arguments: the demo's checkpoint about one of its held-out clips.
#   bash run_scripts/infer.sh --model M --video V --prompt "Describe the <ins>dog</ins>."
#   NPROC=8 bash run_scripts/infer.sh --model M --batch questions.jsonl --output DIR
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch swim infer "$@"
