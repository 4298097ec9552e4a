"""Heads: from a network's output to a square root of the Fisher information of that output."""
