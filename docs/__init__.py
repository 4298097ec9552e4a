"""The pages, and the command that makes their figures and numbers."""
