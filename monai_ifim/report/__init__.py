"""The page a reader sees: figures, tables, Markdown and HTML made from the records of an experiment; computes no statistics."""
