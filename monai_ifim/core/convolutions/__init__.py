"""Backward passes of frozen convolutions: the kernels, which of them is the fastest for a layer, and its use in a pass."""
