#!/usr/bin/env bash
# Weights and data from the hub, below the repository; --help lists the options. HF_ENDPOINT names a mirror.
#   bash run_scripts/download.sh --data --subset 1     # a first try
#   bash run_scripts/download.sh                       # everything
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup.sh" ""
exec "$SWIM_PYTHON" -m swim download --dir "$SWIM_ROOT" "$@"
