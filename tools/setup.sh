#!/usr/bin/env bash
# Make the environment of diffse: check what it needs, then install the locked packages and diffse itself.
# A second run finds it ready and does nothing. DIFFSE_VENV chooses the place (default: .venv).
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${DIFFSE_VENV:-.venv}
disk_gb=7
uv_version=0.13.8

find_python() { # the first of the candidates that is 3.11 or 3.12 and can make environments
  local candidate
  for candidate in python3.12 python3.11 python3 python; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
}

has_headers() { # pesq is compiled against Python's header files
  "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
}

free_gb() { # where the environment will lie; its parents may not exist yet
  local place=$venv
  while [ ! -d "$place" ]; do place=$(dirname "$place"); done
  df -Pk "$place" | awk 'NR == 2 { print int($4 / 1024 / 1024) }'
}

missing=()
python=$(find_python)
[ -n "$python" ] || missing+=("Python 3.11 or 3.12 with its venv module (Debian: apt-get install python3 python3-venv)")
[ -z "$python" ] || has_headers "$python" || missing+=("the header files of $python (Debian: apt-get install python3-dev)")
command -v "${CC:-cc}" >/dev/null || missing+=("a C compiler, for the pesq package (Debian: apt-get install gcc libc6-dev)")
command -v git >/dev/null || missing+=("git (Debian: apt-get install git)")

lock=""
[ -z "$python" ] || lock=$("$python" -c 'import hashlib; print(hashlib.sha256(open("requirements.lock", "rb").read()).hexdigest()[:16])')
stamp=$venv/.lock-$lock
if [ ! -e "$stamp" ] && [ "$(free_gb)" -lt "$disk_gb" ]; then
  missing+=("$disk_gb GB of free disk for the packages ($(free_gb) GB are free; DIFFSE_VENV=<folder> chooses another disk)")
fi
if [ ${#missing[@]} -gt 0 ]; then
  printf 'missing: %s\n' "${missing[@]}" >&2
  exit 1
fi

if [ ! -e "$stamp" ]; then
  echo "installing the locked packages into $venv (several minutes, about $disk_gb GB)"
  "$python" -m venv "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
  "$venv/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" -r requirements.lock
  rm -f "$venv"/.lock-*
fi
# The stamp holds the folder whose diffse is installed, because an environment can serve several checkouts.
if [ "$(cat "$stamp" 2>/dev/null)" != "$PWD $(cksum <pyproject.toml)" ]; then
  "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable .
  echo "$PWD $(cksum <pyproject.toml)" >"$stamp"
fi
