"""Tests of the programs: the same tree as `apps/`."""
