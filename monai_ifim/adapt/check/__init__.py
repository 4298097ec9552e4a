"""Is a network fit to be decomposed, and what will an image cost? Findings, each told when it is known."""
