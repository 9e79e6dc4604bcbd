# Sourced by the launchers: sets up the environment; `launch MODULE [arguments]` runs a module in NPROC processes per node
# on NNODES nodes, NODE_RANK being this one, MASTER_ADDR and MASTER_PORT those of the first.
set -euo pipefail

# whole NAME LEAST: fails where the variable is anything else; bash takes "gpu", "two" and an unknown name for 0.
whole() {
  if [[ ! "${!1}" =~ ^(0|[1-9][0-9]*)$ ]] || (( ${!1} < $2 )); then
    echo "error: $1: expected a whole number of at least $2, found '${!1}'" >&2
    exit 1
  fi
}
NPROC="${NPROC:-1}" NNODES="${NNODES:-1}" NODE_RANK="${NODE_RANK:-0}"
whole NPROC 1
whole NNODES 1
if (( NNODES > 1 )); then
  whole NODE_RANK 0
  if (( NODE_RANK >= NNODES )); then
    echo "error: NODE_RANK: $NODE_RANK of $NNODES nodes; the first is 0" >&2
    exit 1
  elif [[ -z "${MASTER_ADDR:-}" ]]; then
    echo "error: MASTER_ADDR: on $NNODES nodes, give the address of the first" >&2
    exit 1
  fi
fi

SWIM_SCRIPTS="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$SWIM_SCRIPTS/../setup.sh" ""

launch() {
  local command=("$SWIM_PYTHON" -m) meeting=(--standalone) # any free port: runs beside each other do not collide
  if (( NNODES > 1 )); then
    meeting=(--nnodes "$NNODES" --node_rank "$NODE_RANK" --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}")
  fi
  if (( NPROC * NNODES > 1 )); then
    # Slurm's SIGUSR1 reaches the processes too, and they have these seconds to save.
    export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-180}"
    command+=(swim.launch --nproc_per_node "$NPROC" "${meeting[@]}" -m)
  fi
  exec "${command[@]}" "$@"
}
