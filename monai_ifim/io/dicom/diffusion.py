"""b-value and direction of a diffusion-weighted slice, by the standard's attributes or by those of its scanner's maker.

PS3.3, C.8.13.5.9 (MR Diffusion). Private attributes as dcm2niix reads them, each under the name of its private creator
(PS3.5, 7.8.1).
"""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydicom.tag import BaseTag

from monai_ifim.io.dicom.planes import Plane

Numbers = tuple[float, ...]

GE_OFFSET = 100_000  # GE adds multiples of it to a b-value
DIRECTION = 3  # components


@dataclass(frozen=True)
class _Private:
    """Private elements of one group that state a quantity together. kind: how struct unpacks a value whose type the file does
    not state ("" for text)."""

    group: int
    creator: str
    elements: tuple[int, ...]
    kind: str

    @property
    def owner(self) -> int:
        return self.group << 16 | self.elements[0] >> 8

    def tags(self) -> list[int]:
        return [self.owner, *(self.group << 16 | element for element in self.elements)]

    def numbers(self, header: Any) -> Numbers:
        """The numbers that the elements hold; none if one is missing, or of another creator."""
        if str(_value(header, self.owner) or "").strip().upper() != self.creator:
            return ()
        parts = [_numbers(_value(header, self.group << 16 | element), self.kind) for element in self.elements]
        return tuple(number for part in parts for number in part) if all(parts) else ()


B_VALUES = (
    _Private(0x0019, "SIEMENS MR HEADER", (0x100C,), ""),
    _Private(0x0043, "GEMS_PARM_01", (0x1039,), ""),
    _Private(0x2001, "PHILIPS IMAGING DD 001", (0x1003,), "f"),
    _Private(0x0065, "IMAGE PRIVATE HEADER", (0x1009,), "d"),
)
DIRECTIONS = (
    _Private(0x0019, "SIEMENS MR HEADER", (0x100E,), "d"),
    _Private(0x0019, "GEMS_ACQU_01", (0x10BB, 0x10BC, 0x10BD), ""),
    _Private(0x2005, "PHILIPS MR IMAGING DD 001", (0x10B0, 0x10B1, 0x10B2), "f"),
    _Private(0x0065, "IMAGE PRIVATE HEADER", (0x1037,), "d"),
)
PRIVATE_TAGS = tuple(BaseTag(tag) for tag in sorted({tag for each in B_VALUES + DIRECTIONS for tag in each.tags()}))


def b_value(plane: Plane) -> Numbers:
    """The b-value in s/mm^2; empty if none is stated."""
    stated = plane.stated("DiffusionBValue", "MRDiffusionSequence", "DiffusionBValue")
    if stated is not None:
        return (float(stated),)
    for private in B_VALUES:
        found = private.numbers(plane.header)[:1]
        if found:
            return (found[0] % GE_OFFSET,) if private.creator.startswith("GEMS") else found
    return ()


def gradient_direction(plane: Plane) -> Numbers:
    """The direction of the diffusion gradient, three numbers in the frame that the header uses; empty if none is stated."""
    path = ("MRDiffusionSequence", "DiffusionGradientDirectionSequence", "DiffusionGradientOrientation")
    stated = plane.stated("DiffusionGradientOrientation", *path)
    if stated is not None:
        return tuple(map(float, stated))
    found = (private.numbers(plane.header) for private in DIRECTIONS)
    return next((numbers for numbers in found if len(numbers) == DIRECTION), ())


def _value(header: Any, tag: int) -> Any:
    with suppress(Exception):  # pydicom raises many types for a damaged value, which then tells nothing
        element = header.get(BaseTag(tag))
        return None if element is None else element.value
    return None


def _numbers(value: Any, kind: str) -> Numbers:
    """The finite numbers of a value, of which an implicit transfer syntax leaves the bytes alone."""
    if value is None or value == "":
        return ()
    if isinstance(value, bytes) and kind:
        size = struct.calcsize(kind)
        found: Any = struct.unpack(f"<{len(value) // size}{kind}", value[: len(value) // size * size])
    elif isinstance(value, bytes):
        found = value.decode("ascii", "replace").strip(" \0").split("\\")
    else:
        found = [value] if isinstance(value, (str, int, float)) else value
    try:
        numbers = tuple(float(number) for number in found)
    except (TypeError, ValueError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
