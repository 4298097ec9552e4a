"""The files that an image consists of: its own, and those of voxel data apart from it."""
