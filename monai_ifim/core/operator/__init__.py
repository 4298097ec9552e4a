"""The Jacobian J of a network at an image, and the factor A = J^T S with F = A A^T, as products."""
