"""A decomposition as people see it: numbers, words, figures and notebook HTML."""
