"""What the engine does otherwise on a GPU: attention as kernels, and small steps as recorded graphs."""
