"""The page of an experiment: figures, tables and text from its records."""
