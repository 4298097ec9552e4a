"""`Reading`: what was decided in reading an input beyond what its header states outright, as plain data for the sidecar."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

GUESSED = ("Instance Number", "Content Time")  # what says nothing of volumes by itself


@dataclass(frozen=True)
class Reading:
    """Decisions of the reader. An entry that is None does not apply to the input.

    largest_distance_mm: of a slice from its place on the even grid from the first to the last slice, before resampling.
    volume, volumes: number of the volume in its series, from 0, and how many there are, if there are several.
    volumes_differ_in: attributes that tell these apart. repeated_instances: files that repeat another one of the same SOP
    Instance UID, and were left out.
    """

    largest_distance_mm: float | None = None
    volume: int | None = None
    volumes: int | None = None
    volumes_differ_in: tuple[str, ...] | None = None
    repeated_instances: int | None = None

    def described(self) -> dict[str, Any]:
        """The entries that apply, as the sidecar states them under `input.reading`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def words(self) -> tuple[str, ...]:
        """Sentences about what was guessed, which a person must see; empty if nothing was. They are the case's warnings."""
        found = []
        if self.repeated_instances:
            found.append(f"Files that repeat another one of the same SOP Instance UID were left out: {self.repeated_instances}.")
        if self.volumes_differ_in and self.volumes_differ_in[-1] in GUESSED:
            found.append(
                f"The {self.volumes} volumes of the series were told apart by the order of {self.volumes_differ_in[-1]} alone."
            )
        return tuple(found)
