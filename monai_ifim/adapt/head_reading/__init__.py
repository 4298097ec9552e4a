"""Which head a bundle's own files ask for: statements on the network's outputs, each with its place, and what they amount to."""
