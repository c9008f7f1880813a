"""`python -m apps.cli` is the `penstock` command."""

from apps.cli import main

main()
