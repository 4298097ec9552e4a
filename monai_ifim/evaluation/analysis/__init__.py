"""Curves, statistics and summaries of measurements."""
