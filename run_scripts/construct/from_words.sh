#!/usr/bin/env bash
# Records from videos and words: SAM 3 finds what phrases name, SAM 2 what clicks show.
#   NPROC=8 bash run_scripts/construct/from_words.sh --model facebook/sam3 --video *.mp4 --phrases "the <ins>dog</ins>" --output DIR
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../launch.sh"
launch swim from-words "$@"
