#!/usr/bin/env bash
# One environment for everything: the active virtual environment or conda env, else .venv beside this file.
#   bash setup.sh [--flash-attn]
# Installs the versions that were tested together, the fork and the driver (both editable). Does nothing when nothing
# has changed. Sourced by run_scripts/*.sh, which then find $SWIM_PYTHON.
set -euo pipefail
SWIM_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
TORCH=(torch==2.12.1 torchvision==0.27.1)

find_python() {
  if [[ -n "${VIRTUAL_ENV:-}" ]]; then
    echo "$VIRTUAL_ENV/bin/python"
  elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-base}" != base ]]; then
    echo "$CONDA_PREFIX/bin/python"
  else
    [[ -x "$SWIM_ROOT/.venv/bin/python" ]] || make_venv >&2
    echo "$SWIM_ROOT/.venv/bin/python"
  fi
}

make_venv() {
  local candidate
  for candidate in python3.12 python3.11 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null; then
      echo "setup: making $SWIM_ROOT/.venv with $("$candidate" --version)"
      "$candidate" -m venv "$SWIM_ROOT/.venv"
      return
    fi
  done
  echo "setup: no Python of at least 3.11.4 found; install one (python3.11 with its venv module) and run again"
  return 1
}

# What decides whether an installation is current: the pins, the fork's recipe, and where they are installed.
fingerprint() {
  (cd "$SWIM_ROOT" && cat setup.sh driver/pyproject.toml transformers/pyproject.toml transformers/upstream.txt \
    transformers/fork_backend.py transformers/fork_tools/*.py transformers/patches/* && pwd) | sha256sum | cut -d' ' -f1
}

install_all() {
  local pip=("$SWIM_PYTHON" -m pip --disable-pip-version-check)
  echo "setup: installing torch, the fork and the driver into $("$SWIM_PYTHON" -c 'import sys; print(sys.prefix)')"
  "${pip[@]}" install --quiet "${TORCH[@]}"
  "${pip[@]}" install --quiet --editable "$SWIM_ROOT/transformers"
  "${pip[@]}" install --quiet --editable "$SWIM_ROOT/driver[test]"
}

setup() {
  SWIM_PYTHON="$(find_python)"
  export SWIM_PYTHON
  local stamp wanted
  stamp="$("$SWIM_PYTHON" -c 'import sys; print(sys.prefix)')/.swim-setup"
  wanted="$(fingerprint)"
  if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" || ! -e "$SWIM_ROOT/transformers/src/transformers/__init__.py" ]]; then
    install_all
    echo "$wanted" > "$stamp"
  fi
  if [[ "${1:-}" == --flash-attn ]]; then
    echo "setup: building flash-attn (needs nvcc and minutes to hours)"
    "$SWIM_PYTHON" -m pip install --no-build-isolation flash-attn
  fi
}

describe() {
  "$SWIM_PYTHON" - <<'PYTHON'
import importlib.metadata as metadata
import torch
import transformers

names = ("torch", "torchvision", "trl", "accelerate", "deepspeed", "peft", "datasets", "swim-driver")
print("setup:", ", ".join(f"{name} {metadata.version(name)}" for name in names))
print(f"setup: transformers {transformers.__version__} from {transformers.__path__[0]}")
print("setup: GPU:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none, training runs on the CPU")
try:
    print("setup: flash-attn", metadata.version("flash-attn"))
except metadata.PackageNotFoundError:
    print("setup: no flash-attn, attention runs through SDPA (bash setup.sh --flash-attn builds it)")
PYTHON
}

setup "$@"
if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  describe
fi
