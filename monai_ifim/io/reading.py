"""`Reading`: what was decided in reading an input beyond what its header states outright, as plain data for the sidecar."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Reading:
    """Decisions of the reader. An entry that is None does not apply to the input.

    largest_distance_mm: of a slice from its place on the even grid from the first to the last slice, before resampling.
    pixel_spacing: which attribute states it, or "assumed". place: said where the input states none. values: by which of the
    transformations of its header the values are. unasked: whether other readers would give others. inverted: of MONOCHROME1, whether
    its values were swapped for white to be high.
    """

    largest_distance_mm: float | None = None
    pixel_spacing: str | None = None
    place: str | None = None
    values: str | None = None
    unasked: bool | None = None
    inverted: bool | None = None

    def described(self) -> dict[str, Any]:
        """The entries that apply, as the sidecar states them under `input.reading`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def words(self) -> tuple[str, ...]:
        """Sentences about what was guessed, which a person must see; empty if nothing was. They are the case's warnings."""
        return ()
