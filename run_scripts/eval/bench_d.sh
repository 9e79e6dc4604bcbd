#!/usr/bin/env bash
# VideoRefer-Bench-D: descriptions, then a judge with the key in OPENAI_API_KEY. --dry_run ends before it is asked.
#   bash run_scripts/eval/bench_d.sh --model M --questions FILE --output DIR --judge gpt-4o-2024-11-20
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
launch swim bench-d "$@"
