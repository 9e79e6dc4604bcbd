#!/usr/bin/env bash
# Does the model look at what is named? Without arguments: the demo's model against its text-only control.
#   bash run_scripts/eval/grounding.sh [--model BASE SWIM --data FILE --video_root DIR --output DIR ...]
#   NPROC=8 bash run_scripts/eval/grounding.sh --model Qwen/Qwen2.5-VL-7B-Instruct output/swim-7b --data FILE ...
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
launch swim grounding "$@"
