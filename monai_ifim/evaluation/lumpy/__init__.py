"""Lumpy-background images with known statistics, and their ideal observers."""
