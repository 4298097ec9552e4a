"""`Reading`: what was decided in reading an input beyond what its header states outright, as plain data for the sidecar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

POSITIONS, THICKNESS, ASSUMED = "positions", "Slice Thickness", "assumed"
GUESSED = ("Instance Number", "Content Time")  # what says nothing of volumes by itself
OWN_MAP = "Parametric Map of an earlier run"
PARAMETRIC_MAP = "Parametric Map Storage"
REAL_WORLD_ALONE = "real-world values, as no others are stated"


@dataclass(frozen=True)
class Reading:
    """Decisions of the reader. An entry that is None does not apply to the input.

    largest_distance_mm: of a slice from its place on the even grid from the first to the last slice, before resampling.
    slice_step: where the distance between slices comes from: their "positions"; for a mosaic the attribute's name; for a single
    slice "Slice Thickness" or "assumed". volume, volumes: number of the volume in its series, from 0, and how many there are, if
    there are several. volumes_differ_in: attributes that tell these apart. repeated_instances: files that repeat another one of
    the same SOP Instance UID, and were left out. tiles: number of slices that were taken out of one picture, a mosaic.
    passed_over: number of objects that lie beside the images and hold none of their own, by the standard name of their SOP class,
    or OWN_MAP for the Parametric Maps of this program. pixel_spacing: which attribute states it, or "assumed". place: what says
    where the voxels lie, such as "sform", or that nothing does. place_distance_mm: largest distance of the corners of a NIfTI
    file by sform and by qform. values: by which of the transformations in its header. inverted: of MONOCHROME1, whether the
    values were turned so that white is high. assumptions: sentences about what the file does not say.
    """

    largest_distance_mm: float | None = None
    volume: int | None = None
    volumes: int | None = None
    volumes_differ_in: tuple[str, ...] | None = None
    repeated_instances: int | None = None
    slice_step: str | None = None
    tiles: int | None = None
    passed_over: Mapping[str, int] | None = None
    pixel_spacing: str | None = None
    place: str | None = None
    place_distance_mm: float | None = None
    values: str | None = None
    inverted: bool | None = None
    assumptions: tuple[str, ...] | None = None

    def described(self) -> dict[str, Any]:
        """The entries that apply, as the sidecar states them under `input.reading`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def words(self) -> tuple[str, ...]:
        """Sentences about what was guessed, which a person must see; empty if nothing was. They are the case's warnings."""
        return (
            *self._volumes_apart(), *self._guessed_step(), *self._maps_beside(), *self._pixels(), *(self.assumptions or ())
        )  # fmt: skip

    def _pixels(self) -> Iterator[str]:
        """Size and values of the pixels, where they are not those that a header states outright."""
        if ASSUMED in (self.pixel_spacing or ""):
            yield "No pixel spacing in its header: 1 mm is assumed, so that lengths in mm count pixels."
        if self.values == REAL_WORLD_ALONE:
            yield "Values are the real-world ones of its header; other readers give the stored ones, as does --values rescale."

    def _volumes_apart(self) -> Iterator[str]:
        if self.repeated_instances:
            yield f"Files that repeat another one of the same SOP Instance UID were left out: {self.repeated_instances}."
        *stated, last = self.volumes_differ_in or ("",)
        if last in GUESSED and stated:
            yield f"Volumes of the series that agree in {listed(stated)} were told apart by the order of {last} alone."
        elif last in GUESSED:
            yield f"The {self.volumes} volumes of the series were told apart by the order of {last} alone."

    def _guessed_step(self) -> Iterator[str]:
        if self.slice_step == ASSUMED:
            yield "The slice states no Slice Thickness: 1 mm is assumed."
        if self.tiles is not None and self.slice_step == THICKNESS:
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


def listed(names: Sequence[str]) -> str:
    """Such as "b-value, Echo Time and Image Type"."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _several(number: int) -> str:
    return "1 Parametric Map" if number == 1 else f"{number} Parametric Maps"
