"""Solvers: leading eigenpairs of F = A A^T from products with the factor A."""
