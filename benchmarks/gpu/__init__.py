"""What is measured on a GPU alone; see benchmarks/gpu/__main__.py."""
