#!/usr/bin/env bash
# All static checks, the quick ones first. Each runs even if one before it failed: one run shows everything.
set -uo pipefail

bin=.venv/bin status=0

check() {
  local started=$SECONDS
  "$@" || status=1
  echo "-- $(basename "$1") ${2:-}: $((SECONDS - started)) s"
}

check $bin/ruff check .
check $bin/ruff format --check .
check $bin/mypy
check $bin/lint-imports --no-logo
exit $status
