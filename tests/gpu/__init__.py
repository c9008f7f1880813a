"""What can be known on a GPU alone: `python -m tests.gpu` tries the kernels and graphs there, and times them."""
