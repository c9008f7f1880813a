"""Tests of what measures: that it measures the right thing, never how fast."""
