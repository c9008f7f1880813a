#!/usr/bin/env bash
# pytest in a process for each core, at most four; each has a Kafka and a Redis of its own if its tests ask for them.
# Usage: scripts/pytest.sh [ARGUMENTS FOR PYTEST]
# Environment: WORKERS is the number of processes; with 0 all runs in pytest's own, which -s and --pdb need.
set -euo pipefail

exec .venv/bin/python -m pytest --numprocesses "${WORKERS:-auto}" --maxprocesses 4 --dist worksteal "$@"
