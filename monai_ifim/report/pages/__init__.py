"""Parts of all pages: blocks, template environment, figure style."""
