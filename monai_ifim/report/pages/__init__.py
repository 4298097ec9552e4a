"""What every page is made of: blocks, their rendering, figure style."""
