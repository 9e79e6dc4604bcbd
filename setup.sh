#!/usr/bin/env bash
# One environment for everything: the active virtual environment or conda env, else .venv beside this file.
#   bash setup.sh [--flash-attn]
# Installs the versions that were tested together, the fork and the driver (both editable). Does nothing when nothing
# has changed. Sourced by run_scripts/*.sh, which then find $SWIM_PYTHON.
set -euo pipefail
SWIM_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

find_python() {
  local python name
  if [[ -n "${VIRTUAL_ENV:-}" ]]; then
    python="$VIRTUAL_ENV/bin/python" name=VIRTUAL_ENV
  elif [[ -n "${CONDA_PREFIX:-}" && "${CONDA_DEFAULT_ENV:-base}" != base ]]; then
    python="$CONDA_PREFIX/bin/python" name=CONDA_PREFIX
  else
    python="$SWIM_ROOT/.venv/bin/python" name=""
    works "$python" || make_venv >&2 || return 1
  fi
  if ! works "$python"; then
    echo "setup: $python is no Python of at least 3.11.4, but ${name:-the folder} says so; deactivate that environment (unset $name) or make it anew" >&2
    return 1
  fi
  echo "$python"
}

works() {
  "$1" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11, 4))' 2> /dev/null
}

make_venv() {
  local candidate
  for candidate in python3.12 python3.11 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' 2>/dev/null; then
      echo "setup: making $SWIM_ROOT/.venv with $("$candidate" --version)"
      "$candidate" -m venv --clear "$SWIM_ROOT/.venv" > /dev/null 2>&1 && return
      echo "setup: $candidate cannot make an environment; install its venv module (on Debian: apt install python3-venv)"
      return 1
    fi
  done
  echo "setup: no Python of at least 3.11.4 found; install one (python3.11 with its venv module), then run this again"
  return 1
}

# What decides whether an installation is current: the pins, the fork's recipe, and where they are installed.
fingerprint() {
  (cd "$SWIM_ROOT" && cat setup.sh driver/requirements.lock driver/pyproject.toml transformers/pyproject.toml transformers/upstream.txt \
    transformers/fork_backend.py transformers/fork_tools/*.py transformers/patches/* && pwd) | sha256sum | cut -d' ' -f1
}

# check_room PYTHON: stops before the downloads where the disk is too small, rather than minutes later and half-way. What
# the environment holds already is not needed again.
check_room() {
  [[ "$(uname -s) $(uname -m)" == "Linux x86_64" ]] || return 0 # CUDA's libraries are most of it: elsewhere there are none
  "$1" - <<'PYTHON'
import os, shutil, sys, sysconfig, tempfile

PACKAGES, DOWNLOADS = 6.6e9, 2e9  # bytes, measured; either lock. The downloads wait in TMPDIR until all are there.
packages, downloads = sysconfig.get_path("purelib"), tempfile.gettempdir()
held = sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(packages) for name in names)
missing = max(0, 1 - held / PACKAGES)
needs = {downloads: DOWNLOADS * missing, packages: PACKAGES * missing}
if os.stat(packages).st_dev == os.stat(downloads).st_dev:
    needs = {packages: sum(needs.values())}
for folder, need in needs.items():
    free = shutil.disk_usage(folder).free
    if free < need:
        sys.exit(f"setup: {free / 1e9:.1f} GB free in {folder}, about {need / 1e9:.1f} GB needed; make room, or name another disk ({'TMPDIR' if folder == downloads else 'an environment there, as VIRTUAL_ENV'}), then run this again")
PYTHON
}

# install_locked PYTHON LOCK: everything that the lock file names, the fork, and the driver. Their own dependencies are
# among what the lock names, so that no other release of any package can come in.
install_locked() {
  local pip=("$1" -m pip --disable-pip-version-check)
  check_room "$1"
  echo "setup: installing $(grep -c '^[a-z].*==' "$2") packages into $("$1" -c 'import sys; print(sys.prefix)'), minutes:"
  "${pip[@]}" install --no-deps --require-hashes --requirement "$2"
  echo "setup: fetching and patching the fork"
  "${pip[@]}" install --quiet --no-deps --editable "$SWIM_ROOT/transformers"
  "${pip[@]}" install --quiet --no-deps --editable "$SWIM_ROOT/driver"
}

setup() {
  SWIM_PYTHON="$(find_python)"
  export SWIM_PYTHON
  local stamp wanted
  stamp="$("$SWIM_PYTHON" -c 'import sys; print(sys.prefix)')/.swim-setup"
  wanted="$(fingerprint)"
  if [[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" || ! -e "$SWIM_ROOT/transformers/src/transformers/__init__.py" ]]; then
    install_locked "$SWIM_PYTHON" "$SWIM_ROOT/driver/requirements.lock"
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
