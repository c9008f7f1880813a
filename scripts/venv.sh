#!/usr/bin/env bash
# Make the virtual environment VENV and install WHAT into it, in the versions of constraints.txt.
# Usage: scripts/venv.sh VENV WHAT      Environment: PYTHON names the interpreter; else the newest known one >= 3.11.
set -euo pipefail

venv=$1 what=$2
started=$SECONDS

fail() { printf '\n%s\n' "$@" >&2; exit 1; }

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

as_root_on_debian() { [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ] && command -v apt-get >/dev/null; }

apt_install() {
  echo "Installing $* with apt ..."
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null
  apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@" </dev/null >/dev/null
}

find_python() {
  local name
  if [ -n "${PYTHON:-}" ]; then
    recent "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or later."
    echo "$PYTHON"
    return
  fi
  for name in python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null && recent "$name"; then echo "$name"; return; fi
  done
}

make_venv() {
  # Debian's python3 has the venv module and yet no ensurepip: that comes with python3-venv.
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    local package
    package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
    as_root_on_debian || fail "$python cannot make virtual environments. On Debian or Ubuntu: apt-get install $package"
    apt_install "$package"
  fi
  "$python" -m venv --clear "$venv"
}

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  python=$(find_python)
  if [ -z "$python" ] && as_root_on_debian; then
    apt_install python3 python3-venv
    python=$(find_python)
  fi
  [ -n "$python" ] || fail "Penstock needs Python 3.11 or later, and found none." \
    "On Debian 12, Ubuntu 24.04 or later: apt-get install python3 python3-venv.  Or name one: make PYTHON=/path/to/python3"
  echo "Making $venv with $("$python" --version) ..."
  make_venv
fi

echo "Installing $what into $venv (some minutes the first time: torch is large) ..."
# setuptools warns of every editable install, at length: nothing a user could mend.
PYTHONWARNINGS=ignore "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 10 --timeout 60 \
  --constraint constraints.txt --editable "$what" </dev/null
echo "Installed in $((SECONDS - started)) s."
