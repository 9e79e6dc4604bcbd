#!/usr/bin/env bash
# Supervised fine-tuning. Without arguments: the demo, a tiny model on sample data that it makes itself.
#   bash run_scripts/run_sft.sh [--config FILE] [--key value ...]
#   NPROC=8 bash run_scripts/run_sft.sh --config run_scripts/configs/sft_7b.yaml
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
launch swim train --config "$SWIM_SCRIPTS/configs/sft_demo.yaml" "$@"
