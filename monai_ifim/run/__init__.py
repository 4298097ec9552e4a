"""Many cases: which inputs there are, and one engine that decomposes them."""
