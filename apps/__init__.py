"""The programs that put the stages to use."""
