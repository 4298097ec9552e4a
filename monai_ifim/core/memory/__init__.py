"""Memory budgets: the plan, recomputed blocks, layers that save less, offloaded tensors."""
