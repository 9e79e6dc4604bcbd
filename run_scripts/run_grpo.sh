#!/usr/bin/env bash
# Reinforcement learning by GRPO. Without arguments: the demo, from its model that was trained on the text alone.
#   bash run_scripts/run_grpo.sh [--config FILE] [--key value ...]
#   NPROC=8 bash run_scripts/run_grpo.sh --config run_scripts/configs/grpo_7b.yaml
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch swim grpo --config "$SWIM_SCRIPTS/configs/grpo_demo.yaml" "$@"
