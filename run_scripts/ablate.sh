#!/usr/bin/env bash
# Ablations. Without arguments: the paper's on the demo's tiny model.
#   bash run_scripts/ablate.sh [FILE] [--workers 2] [--output DIR]
#   NPROC=8 bash run_scripts/ablate.sh run_scripts/ablations/paper_7b.yaml    # each training on 8 GPUs
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
if (( $# == 0 )) || [[ $1 == --* ]]; then
  set -- "$SWIM_SCRIPTS/ablations/demo.yaml" "$@"
fi
exec "$SWIM_PYTHON" -m swim ablate "$@"
