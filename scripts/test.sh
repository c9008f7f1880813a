#!/usr/bin/env bash
# Everything that must hold: static checks, then all tests, on real services (SERVICES=none leaves those out, visibly).
# Usage: scripts/test.sh [ARGUMENTS FOR PYTEST]
set -euo pipefail

bin=.venv/bin started=$SECONDS

part() {
  local begun=$SECONDS name=$1
  shift
  echo "== $name"
  "$@" || { echo "== $name failed after $((SECONDS - begun)) s" >&2; exit 1; }
  echo "== $name: $((SECONDS - begun)) s"
}

part "lint" scripts/lint.sh
part "programs for the tests" $bin/python -m tests.services --prepare
part "tests" scripts/pytest.sh --durations=10 "$@"
echo "== all: $((SECONDS - started)) s"
