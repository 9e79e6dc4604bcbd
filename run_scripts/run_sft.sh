#!/usr/bin/env bash
# Supervised fine-tuning. Without arguments: the demo, a tiny model on sample data that it makes itself.
#   bash run_scripts/run_sft.sh [--config FILE] [--key value ...]
#   NPROC=8 bash run_scripts/run_sft.sh --config run_scripts/configs/sft_7b.yaml
# NPROC processes per node, NNODES nodes, NODE_RANK of this one, MASTER_ADDR and MASTER_PORT of the first.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup.sh" ""

launch=("$SWIM_PYTHON" -m)
if (( ${NPROC:-1} * ${NNODES:-1} > 1 )); then
  launch+=(torch.distributed.run --nproc_per_node "${NPROC:-1}" --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}"
    --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}" -m)
fi
exec "${launch[@]}" swim.train --config "$here/configs/sft_demo.yaml" "$@"
