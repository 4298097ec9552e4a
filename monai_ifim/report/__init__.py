"""Pages of experiments and of cohorts: figures, tables, Markdown and HTML from their records; computes no statistics."""
