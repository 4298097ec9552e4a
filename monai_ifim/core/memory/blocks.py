"""Blocks of elements for float64 algebra on whole images."""

from __future__ import annotations

BLOCK_ELEMENTS = 2**18  # of a float64 block: 2 MiB, which fit a processor's cache
SHORTEST_BLOCK = 2**13  # elements of each row at least, as short blocks of many rows cost more in the loop
LARGEST_BLOCK = 2**23  # elements of all rows together at most


def blocks(size: int, rows: int, limit: int = LARGEST_BLOCK) -> list[tuple[int, int]]:
    """Windows (start, stop) that cover `size` elements, for float64 algebra on `rows` rows at once.

    limit: elements that one window of all rows may hold.
    """
    step = max(1, min(limit // rows, max(BLOCK_ELEMENTS // rows, SHORTEST_BLOCK)))
    return [(start, min(start + step, size)) for start in range(0, size, step)]
