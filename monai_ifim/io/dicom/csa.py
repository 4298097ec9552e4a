"""Numbers in a CSA header, Siemens' private element (0029,xx10). Its texts may tell of a person and are never taken over.

The form is that of nibabel's page on it (nipy.org/nibabel/dicom/siemens_csa.html) and of SPM's reader. nibabel's own reader,
which calls itself experimental, believes lengths below zero and does not read version 1.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Container

VERSION_2 = b"SV10"  # begins the header since software VB; version 1 has no such beginning
LARGEST_HEADER = 2**20  # bytes; scanners write some 12,000
MOST_ELEMENTS, MOST_ITEMS = 512, 4096  # scanners write some 100, with an item a slice at most
COUNTS = struct.Struct("<2I")  # number of elements, and 77
ELEMENT = struct.Struct("<64si4s3i")  # name, multiplicity, representation, type in the scanner, number of items, 77 or 205
ITEM = struct.Struct("<4i")  # its length in several ways


def csa_numbers(header: bytes, names: Container[str]) -> dict[str, tuple[float, ...]]:
    """The numbers of those of the named elements that have values.

    Raises ValueError, which quotes nothing, for a damaged header and for values that are not finite numbers.
    """
    try:
        return _numbers(header, names)
    except (struct.error, ValueError, OverflowError):  # whose texts may quote the header
        raise ValueError("a CSA header that is damaged") from None


def _numbers(header: bytes, names: Container[str]) -> dict[str, tuple[float, ...]]:
    newer = header.startswith(VERSION_2)
    start = 2 * len(VERSION_2) if newer else 0
    count, _ = COUNTS.unpack_from(header, start)
    place = start + COUNTS.size
    _check(len(header) <= LARGEST_HEADER and count <= MOST_ELEMENTS)
    found: dict[str, tuple[float, ...]] = {}
    surplus = None
    for _ in range(count):
        name, _, _, _, items, _ = ELEMENT.unpack_from(header, place)
        place += ELEMENT.size
        _check(0 <= items <= MOST_ITEMS)
        surplus = items if surplus is None else surplus  # version 1 adds the first element's number of items to each length
        texts = []
        for _ in range(items):
            lengths = ITEM.unpack_from(header, place)
            place += ITEM.size
            length = lengths[1] if newer else lengths[0] - surplus
            if not newer and not 0 <= length <= len(header) - place:
                break  # what follows in this element is not used
            _check(0 <= length <= len(header) - place)
            texts.append(_text(header[place : place + length]))
            place += -(-length // 4) * 4
        known = _text(name)
        if known in names and any(texts):
            found[known] = tuple(_finite(text) for text in texts if text)
    return found


def _text(value: bytes) -> str:
    return value.partition(b"\0")[0].decode("latin-1").strip()


def _finite(text: str) -> float:
    number = float(text)
    _check(math.isfinite(number))
    return number


def _check(right: bool) -> None:
    if not right:
        raise ValueError
