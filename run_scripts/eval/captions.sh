#!/usr/bin/env bash
# Captions of named objects: CIDEr, BLEU, ROUGE-L, and METEOR where Java runs.
# Without arguments: the demo's models on its held-out clips.
#   bash run_scripts/eval/captions.sh --model BASE SWIM --questions hcstvg_v2_val.json --video_root DIR --output DIR
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
(( $# )) || set -- --batch_size 32 --max_new_tokens 32 # the demo's models are small, their answers short
launch swim captions "$@"
