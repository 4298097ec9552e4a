"""Perturbation experiments: directions, perturbed images, what is measured on them."""
