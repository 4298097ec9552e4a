"""Verification of decompositions by differences of the network's output."""
