"""`Reading`: what was decided in reading an input beyond what its header states outright, as plain data for the sidecar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

OWN_MAP = "Parametric Map of an earlier run"
PARAMETRIC_MAP = "Parametric Map Storage"


@dataclass(frozen=True)
class Reading:
    """Decisions of the reader. An entry that is None does not apply to the input.

    largest_distance_mm: of a slice from its place on the even grid from the first to the last slice, before resampling.
    slice_step: where the distance between slices comes from: an attribute's name. tiles: number of slices that were taken out of
    one picture, a mosaic. passed_over: number of objects that lie beside the images and hold none of their own, by the standard
    name of their SOP class, or OWN_MAP for the Parametric Maps of this program.
    place: what in a file that nibabel reads says where its voxels lie, such as "sform"; "assumed" if nothing does.
    place_distance_mm: largest distance of its corners by sform and by qform. assumptions: sentences about what the file does not
    say.
    """

    largest_distance_mm: float | None = None
    slice_step: str | None = None
    tiles: int | None = None
    passed_over: Mapping[str, int] | None = None
    place: str | None = None
    place_distance_mm: float | None = None
    assumptions: tuple[str, ...] | None = None

    def described(self) -> dict[str, Any]:
        """The entries that apply, as the sidecar states them under `input.reading`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def words(self) -> tuple[str, ...]:
        """Sentences about what was guessed, which a person must see; empty if nothing was. They are the case's warnings."""
        return (*self._guessed_step(), *self._maps_beside(), *(self.assumptions or ()))

    def _guessed_step(self) -> Iterator[str]:
        if self.tiles is not None and self.slice_step == "Slice Thickness":
            yield (
                "The distance between the slices of the mosaic is not stated (Spacing Between Slices): they were placed as if "
                "there were no gap between them."
            )

    def _maps_beside(self) -> Iterator[str]:
        """Parametric Maps beside the images: they have pixels and places, as images do."""
        found = self.passed_over or {}
        if number := found.get(OWN_MAP):
            yield f"{_several(number)} of an earlier run of monai_ifim beside the images: passed over."
        if number := found.get(PARAMETRIC_MAP):
            yield f"{_several(number)} of another program beside the images: passed over, as it was computed from images."


def _several(number: int) -> str:
    return "1 Parametric Map" if number == 1 else f"{number} Parametric Maps"
