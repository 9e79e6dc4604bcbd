#!/usr/bin/env bash
# VideoRefer-Bench-Q. Without arguments: the demo's models on questions about its held-out clips.
#   bash run_scripts/eval/bench_q.sh [--model M --questions FILE --video_root DIR --output DIR ...]
#   NPROC=8 bash run_scripts/eval/bench_q.sh --model output/swim-7b --questions refined-VideoRefer-Bench-Q.json ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
(( $# )) || set -- --batch_size 32 --max_new_tokens 16 # the demo's models are small, their answers short
launch swim bench-q "$@"
