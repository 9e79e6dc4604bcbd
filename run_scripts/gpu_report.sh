#!/usr/bin/env bash
# Measures on one GPU what only a GPU can show and writes output/gpu_report/gpu_report.md; at most ten minutes.
#   bash run_scripts/gpu_report.sh [--rehearse]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../setup.sh" ""
cd "$here/.."
exec "$SWIM_PYTHON" driver/benchmarks/gpu_report.py "$@"
