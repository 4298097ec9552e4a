"""Sizes of the blocks in which float64 algebra over whole images works."""

from __future__ import annotations

BLOCK_ELEMENTS = 2**18  # elements of a float64 working block: 2 MiB, which stay in a processor's cache
SHORTEST_BLOCK = 2**13  # elements of each row in a block, where rows are many and a loop over them would cost more
LARGEST_BLOCK = 2**23  # elements of such a block


def blocks(size: int, rows: int, limit: int = LARGEST_BLOCK) -> list[tuple[int, int]]:
    """Windows (start, stop) that cover `size` elements, for float64 algebra on `rows` rows at once.

    limit: elements that one window of all rows may hold.
    """
    step = max(1, min(limit // rows, max(BLOCK_ELEMENTS // rows, SHORTEST_BLOCK)))
    return [(start, min(start + step, size)) for start in range(0, size, step)]
