"""Tests of the pipeline: the same tree as `pipeline/`."""
