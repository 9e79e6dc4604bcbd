#!/usr/bin/env bash
# VideoRefer-Bench-D: descriptions, then a judge with the key in OPENAI_API_KEY. --dry_run ends before it is asked.
# Without arguments: the demo's models on its held-out clips, and a judge that knows their scenes and needs no key.
#   bash run_scripts/eval/bench_d.sh --model M --questions FILE --output DIR --judge gpt-4o-2024-11-20
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
(( $# )) || set -- --batch_size 32 --max_new_tokens 32 # the demo's models are small, their answers short
launch swim bench-d "$@"
