"""Cases on a Ray cluster: driver, scheduling, workers."""
