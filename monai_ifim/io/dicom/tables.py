"""Tables and lines by which a DICOM header turns stored values into others: `Mapping` (PS3.3, C.11.1 and C.7.6.16.2.11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.io.errors import InputError

Array = npt.NDArray[np.float64]
BROKEN = "a table of values in its DICOM header is broken: export the image again"
LARGEST = 2**16  # entries of a table that a descriptor counts as 0
SAME = 1e-5  # relative difference within which two slopes are one: one of them may be written in decimals


@dataclass(frozen=True, eq=False)
class Table:
    """Values by stored value: entries[0] is that of `first`. ends_go_on: values beyond an end have the entry at that end, as in a
    Modality LUT, and are no error, as in a table of real-world values."""

    first: int
    entries: Array
    ends_go_on: bool = True

    def __call__(self, stored: Array) -> Array:
        """The values; raises InputError for a stored value that the table does not map."""
        places = stored - self.first
        if not self.ends_go_on and places.size and (places.min() < 0 or places.max() >= len(self.entries)):
            last = self.first + len(self.entries) - 1
            raise InputError(
                f"its table of real-world values maps stored values from {self.first} to {last}, and it has values from "
                f"{stored.min():g} to {stored.max():g}: use --values rescale"
            )
        return self.entries[np.clip(places, 0, len(self.entries) - 1).astype(np.int64)]


@dataclass(frozen=True, eq=False)
class Mapping:
    """From stored values to others: slope * stored + intercept, or a table. unit: of the result."""

    slope: float = 1.0
    intercept: float = 0.0
    table: Table | None = None
    unit: str = ""

    @property
    def is_identity(self) -> bool:
        """True if it leaves the stored values as they are."""
        return self.table is None and (self.slope, self.intercept) == (1.0, 0.0)

    def is_line(self, slope: float, intercept: float) -> bool:
        """True if it has exactly this slope and intercept."""
        return self.table is None and (self.slope, self.intercept) == (slope, intercept)

    def __call__(self, stored: Array) -> Array:
        """The values; raises InputError for a stored value that a table does not map."""
        return stored * self.slope + self.intercept if self.table is None else self.table(stored)

    def of_inverted(self, largest: int) -> Mapping:
        """The mapping of stored values that are first subtracted from `largest`; of a table, its values are inverted instead."""
        if self.table is None:
            return replace(self, slope=-self.slope, intercept=self.slope * largest + self.intercept)
        entries = self.table.entries
        return replace(self, table=replace(self.table, entries=entries.min() + entries.max() - entries))

    def gives_as(self, other: Mapping) -> bool:
        """True if both give the same values, to the digits in which they are written."""
        if self.table is None and other.table is None:
            tiny = SAME * max(abs(self.intercept), abs(other.intercept), abs(self.slope))
            return abs(self.slope - other.slope) <= SAME * abs(self.slope) and abs(self.intercept - other.intercept) <= tiny
        if self.table is None or other.table is None:
            line, table = (self, other.table) if other.table is not None else (other, self.table)
            return table is not None and _near(line(table.first + np.arange(len(table.entries), dtype=np.float64)), table.entries)
        one, two = self.table, other.table
        return one.first == two.first and len(one.entries) == len(two.entries) and _near(one.entries, two.entries)


def line(slope: Any, intercept: Any, unit: str) -> Mapping:
    """The mapping of a slope, by default 1, and an intercept, by default 0; raises ValueError for text."""
    return Mapping(1.0 if slope in (None, "") else float(slope), 0.0 if intercept in (None, "") else float(intercept), unit=unit)


def modality_table(item: Any, header: Any, unit: str) -> Mapping:
    """The table of an item of Modality LUT Sequence; header: of the image. Raises InputError for a broken one."""
    try:
        count, first, bits = (int(number) for number in item.LUTDescriptor)
        count = count or LARGEST
        if int(header.get("PixelRepresentation") or 0) == 1 and first > np.iinfo(np.int16).max:
            first -= LARGEST  # the attribute's type is that of the pixels, which a file of implicit types does not say
        entries = _entries(item.LUTData, bits, "<" if header.original_encoding[1] else ">", count)
    except InputError:
        raise
    except Exception:  # pydicom raises many types
        raise InputError(BROKEN) from None
    if len(entries) < count:
        raise InputError(BROKEN)
    return Mapping(table=Table(first, entries[:count]), unit=unit)


def real_world_mapping(item: Any, unit: str) -> Mapping:
    """The mapping of an item of Real World Value Mapping Sequence; raises InputError for a broken one."""
    try:
        if item.get("RealWorldValueLUTData") is not None:
            entries = np.atleast_1d(np.array(item.RealWorldValueLUTData, dtype=np.float64))
            mapping = Mapping(table=Table(_first_mapped(item), entries, ends_go_on=False), unit=unit)
        else:
            mapping = Mapping(float(item.RealWorldValueSlope), float(item.RealWorldValueIntercept), unit=unit)
    except Exception:
        raise InputError(BROKEN) from None
    if mapping.table is None and not (np.isfinite(mapping.slope) and np.isfinite(mapping.intercept) and mapping.slope != 0):
        raise InputError(BROKEN)
    return mapping


def applied(name: str, mappings: Sequence[Mapping], stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The values of slices [slices, rows, columns], each by its own mapping; name: what an error calls the volume.

    Raises InputError for a stored value that a table does not map.
    """
    values = np.empty(stored.shape, dtype=np.float32)
    try:
        for number, mapping in enumerate(mappings):
            values[number] = mapping(stored[number].astype(np.float64))
    except InputError as error:
        raise InputError(f"{name}: {error}.") from None
    return values


def _entries(data: Any, bits: int, order: str, count: int) -> Array:
    if not isinstance(data, bytes):
        return np.atleast_1d(np.array(data, dtype=np.float64))
    packed = bits <= 8 and len(data) < 2 * count  # two entries a word (PS3.3, C.11.1.1.1)
    return np.frombuffer(data, dtype="u1" if packed else f"{order}u2").astype(np.float64)


def _first_mapped(item: Any) -> int:
    stated = item.get("DoubleFloatRealWorldValueFirstValueMapped")
    return int(item.RealWorldValueFirstValueMapped if stated is None else stated)


def _near(one: Array, two: Array) -> bool:
    return bool(np.allclose(one, two, rtol=SAME, atol=SAME * max(1e-30, float(np.abs(two).max(initial=0.0)))))
