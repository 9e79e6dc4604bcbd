#!/usr/bin/env bash
# NL-Refer from VideoRefer files through any OpenAI-compatible model, with the key in OPENAI_API_KEY. --dry_run estimates.
#   bash run_scripts/construct/nl_refer.sh --input videorefer-*.json --output DIR --model M [--base_url URL]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
launch swim construct "$@"
