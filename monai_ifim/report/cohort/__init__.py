"""The page of a run of many cases (index.html)."""
