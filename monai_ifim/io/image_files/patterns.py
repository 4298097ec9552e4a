"""Names of numbered data files, as in `slice%03d.raw 1 10 1`."""

from __future__ import annotations

import re

LONGEST_LIST = 100_000  # data files of one image
LONGEST_PATTERN = 79  # characters; MetaIO copies words into 80 bytes
NUMBERED = re.compile(r"([^%\s]*%0?\d{0,2}d[^%\s]*)[ \t]+(-?\d{1,9})[ \t]+(-?\d{1,9})[ \t]+(-?[1-9]\d{0,8})([ \t]+\d)?")


def numbered_names(stated: str) -> tuple[str, ...] | None:
    """The names that a pattern with its first and last number and its step stands for; None if it is not of that form."""
    found = NUMBERED.fullmatch(stated)
    if found is None or len(found[1]) > LONGEST_PATTERN:
        return None
    first, last, step = int(found[2]), int(found[3]), int(found[4])
    numbers = range(first, last + (1 if step > 0 else -1), step)
    if not 0 < len(numbers) <= LONGEST_LIST:
        return None
    return tuple(found[1] % number for number in numbers)
