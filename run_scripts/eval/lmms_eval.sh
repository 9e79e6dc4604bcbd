#!/usr/bin/env bash
# General benchmarks through lmms-eval, in an environment of its own (.venv-lmms) over the fork.
#   bash run_scripts/eval/lmms_eval.sh --model PATH --tasks mvbench,videomme,activitynetqa [arguments of lmms_eval]
#   bash run_scripts/eval/lmms_eval.sh --model output/demo --tasks videorefer_bench_q --limit 4 --device cpu
# Besides lmms-eval's own tasks there are videorefer_bench_q and videorefer_bench_d; VIDEOREFER_BENCH_Q, VIDEOREFER_BENCH_D
# and VIDEOREFER_ROOT name their files and videos.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../../setup.sh" ""
if [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then
  exec "$SWIM_PYTHON" -m swim.lmms_tasks --help # which needs nothing of lmms-eval
fi
environment="${SWIM_LMMS_ENV:-$SWIM_ROOT/.venv-lmms}"
lock="$here/lmms_eval_requirements.lock"
wanted="$(cat "$lock" "$SWIM_ROOT/transformers/upstream.txt" "$SWIM_ROOT"/transformers/patches/* | sha256sum | cut -d' ' -f1)"
if [[ "$(cat "$environment/.swim-setup" 2>/dev/null)" != "$wanted" ]]; then
  echo "lmms_eval: making $environment"
  "$SWIM_PYTHON" -m venv "$environment"
  install_locked "$environment/bin/python" "$lock"
  echo "$wanted" > "$environment/.swim-setup"
fi
exec "$environment/bin/python" -m swim.lmms_tasks "$@"
