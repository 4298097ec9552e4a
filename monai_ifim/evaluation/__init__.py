"""Tasks with a known answer, and the observers that answer them best."""
