# Sourced by the launchers: sets up the environment; `launch MODULE [arguments]` runs a module in NPROC processes per node
# on NNODES nodes, NODE_RANK being this one, MASTER_ADDR and MASTER_PORT those of the first.
set -euo pipefail
SWIM_SCRIPTS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$SWIM_SCRIPTS/../setup.sh" ""

launch() {
  local command=("$SWIM_PYTHON" -m) meeting=(--standalone) # any free port: runs beside each other do not collide
  if (( ${NNODES:-1} > 1 )); then
    meeting=(--nnodes "$NNODES" --node_rank "${NODE_RANK:-0}"
      --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}")
  fi
  if (( ${NPROC:-1} * ${NNODES:-1} > 1 )); then
    # Slurm's SIGUSR1 reaches the processes too, and they have these seconds to save.
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-180}"
    command+=(swim.launch --nproc_per_node "${NPROC:-1}" "${meeting[@]}" -m)
  fi
  exec "${command[@]}" "$@"
}
