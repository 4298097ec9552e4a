"""Benchmarks: scripts that print ratios from one run, with the environment they ran in."""
