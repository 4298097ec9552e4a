"""The figures of the pages, and the command that makes them: python -m docs.figures."""
