"""Scanner space: the decomposition of the scan itself, through the preprocessing."""
