"""Pictures of a case: coloured planes as WebP, colour bars, letters of the patient's sides, and a scale bar in mm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from PIL import Image

from monai_ifim.display import numbers
from monai_ifim.display.sides import edge_words, letter_places, place_text, side_text
from monai_ifim.display.vocabulary import map_name, titled
from monai_ifim.display.windows import bar_shape
from monai_ifim.io.planes import LABELS, CasePlanes, Plane, PlaneMap
from monai_ifim.report.cohort.colors import color_table, colors_of
from monai_ifim.report.cohort.encoding import encoded
from monai_ifim.report.cohort.labels import LegendRow, legend, over_image
from monai_ifim.report.cohort.slices import SliceView, slice_view
from monai_ifim.report.cohort.thumbnails import thumbnail

__all__ = ["MapColumn", "PictureGrid", "PlanePicture", "ScaleBar", "draw_picture_grid"]

TALLEST = 1.25  # largest height of a picture over the width of its column; all planes of a case have one scale
BAR_SHARE = 0.4  # largest length of a scale bar over the picture's width
FLAT = 0.15  # height over width below which letters at top and bottom would cover the picture
BESIDE, ABOVE = 0.62, 0.7  # shares of width and height: spots beyond the one or before the other leave the lower left corner free
NORMALS: Mapping[str, int] = MappingProxyType({"sagittal": 0, "coronal": 1, "axial": 2})  # RAS axis

Place = tuple[float, float]


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar: its length as text, and as percent of the picture's width."""

    text: str
    percent: float


@dataclass(frozen=True)
class PlanePicture:
    """One plane. source: data URI; size: (width, height) in pixels; ratio: width over height as displayed, in mm where these
    are known; percent: width of the picture in percent of its column's; edges: letters at left, right, top, bottom; places: of
    these, as `display.sides.letter_places`; bar_at: the lower corner of the scale bar, "left" or "right". Letters and bar do not
    lie on the most sensitive spot."""

    source: str = field(repr=False)
    size: tuple[int, int]
    view: str
    place: str
    alt: str
    edges: tuple[str, str, str, str]
    places: tuple[Place, ...]
    ratio: float
    percent: float
    bar: ScaleBar | None
    bar_at: str


@dataclass(frozen=True)
class MapColumn:
    """The planes of one map, one below the other. colors: a key of COLORS; shape: CSS's clip-path of the colour bar, pointed
    where values lie beyond; marks: values at its left, middle and right; legend: of a segmentation, in place of the bar."""

    title: str
    unit: str
    colors: str
    shape: str
    marks: tuple[str, str, str]
    pictures: tuple[PlanePicture, ...]
    legend: tuple[LegendRow, ...] = ()


@dataclass(frozen=True)
class PictureGrid:
    """All pictures of a case. point: where the planes meet, as text; empty without a world frame. thumbnail: data URI of the
    image with the sensitivity over it; slices: to scroll through, None in records of earlier versions."""

    columns: tuple[MapColumn, ...]
    point: str
    thumbnail: str = field(default="", repr=False)
    slices: SliceView | None = None

    @property
    def weight(self) -> int:
        """Characters of all pictures and slices."""
        pictures = sum(len(picture.source) for column in self.columns for picture in column.pictures)
        return pictures + (0 if self.slices is None else len(self.slices.data))


def draw_picture_grid(planes: CasePlanes, most: float = math.inf) -> PictureGrid:
    """Colour and encode the planes of a case in the best quality of at most `most` characters, or else in the worst."""
    slices = None if planes.stack is None else slice_view(planes.stack, planes.labels, planes.saturated)
    most -= 0 if slices is None else len(slices.data)
    drawn = [plane for found in planes.maps for plane in found.planes]
    width = _column_width(drawn)
    sources = iter(encoded([image for found in planes.maps for image in _images(found, planes)], most))
    columns = [_column(found, width, sources, planes) for found in planes.maps if found.planes]
    framed = any(plane.has_frame for plane in drawn)
    return PictureGrid(tuple(columns), place_text(planes.point) if framed else "", thumbnail(planes), slices)


def _images(found: PlaneMap, planes: CasePlanes) -> list[Image.Image]:
    """The coloured planes of a map; labels lie over the image."""
    if found.kind != LABELS:
        return [_colored(plane, colors_of(found.kind, planes.saturated)) for plane in found.planes]
    behind = next((each.planes for each in planes.maps if each.kind in ("source", "input")), found.planes)
    return [over_image(plane.values, image.values, planes.labels) for plane, image in zip(found.planes, behind, strict=True)]


def _column(found: PlaneMap, width: float, sources: Iterator[str], planes: CasePlanes) -> MapColumn:
    kind = found.kind
    title = titled(map_name(kind))
    low, high = found.window
    said = f"from {numbers.number(low)} to {numbers.number(high)} {numbers.unit_text(found.unit)}".strip()
    if kind == LABELS:
        said = ", ".join(f"{row.name} {row.text}" for row in legend(planes.labels)) or "no label"
    return MapColumn(
        title=title,
        unit=numbers.unit_text(found.unit),
        colors=colors_of(found.kind, planes.saturated),
        shape=bar_shape(*found.beyond),
        marks=(numbers.number(low), numbers.number((low + high) / 2), numbers.number(high)),
        pictures=tuple(
            _picture(plane, f"{title}, {said}", width, next(sources), spot)
            for plane, spot in zip(found.planes, _spots(planes), strict=True)
        ),
        legend=legend(planes.labels) if kind == LABELS else (),
    )


def _spots(planes: CasePlanes) -> list[Place | None]:
    """The most sensitive place of each plane, (across, down) as shares of it; None without a map of the sensitivity."""
    found = next((each.planes for each in planes.maps if each.kind == "sensitivity"), None)
    if found is None:
        return [None] * len(planes.maps[0].planes)
    spots: list[Place | None] = []
    for plane in found:
        row, column = np.unravel_index(int(plane.values.argmax()), plane.values.shape)
        spots.append(((int(column) + 0.5) / plane.values.shape[1], (int(row) + 0.5) / plane.values.shape[0]))
    return spots


def _picture(plane: Plane, title: str, width: float, source: str, spot: Place | None) -> PlanePicture:
    rows, columns = plane.values.shape
    down, across = plane.extent
    left, right, *ends = plane.edges
    top, bottom = ends if down / across >= FLAT else ("", "")
    return PlanePicture(
        source=source,
        size=(columns, rows),
        view=plane.view,
        place=_place(plane),
        alt=_alt(plane, title),
        edges=(left, right, top, bottom),
        places=letter_places(spot),
        ratio=round(across / down, 4),
        percent=round(100 * across / width, 2),
        bar=_bar(across) if plane.has_frame else None,
        bar_at="left" if spot is None or spot[0] > BESIDE or spot[1] < ABOVE else "right",
    )


def _colored(plane: Plane, colors: str) -> Image.Image:
    return Image.fromarray(plane.values if colors == "grey" else color_table(colors)[plane.values])


def _column_width(planes: Sequence[Plane]) -> float:
    """Width of a column in mm (or pixels), the same for all planes of a case."""
    extents = [plane.extent for plane in planes] or [(1.0, 1.0)]
    return max(max(across for _, across in extents), max(down for down, _ in extents) / TALLEST)


def _bar(across: float) -> ScaleBar:
    """The largest length of 1, 2 or 5 times a power of ten within BAR_SHARE of the width."""
    longest = BAR_SHARE * across
    power = 10.0 ** math.floor(math.log10(longest))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= longest * (1 + 1e-9))
    return ScaleBar(f"{numbers.as_given(length)}{numbers.FIRM_SPACE}mm", round(100 * length / across, 2))


def _place(plane: Plane) -> str:
    """Position of the plane along its normal: S 12.5 mm; empty without a world frame."""
    if not plane.has_frame or plane.view not in NORMALS:
        return ""
    return side_text(plane.offset, NORMALS[plane.view])


def _alt(plane: Plane, title: str) -> str:
    if not any(plane.edges):
        return f"{title}, {numbers.sizes(plane.values.shape[::-1])} pixels"
    sides = zip(("left", "right", "top", "bottom"), plane.edges, strict=True)
    where = ", ".join(f"{edge_words(letter)} at the {side}" for side, letter in sides if letter)
    place = _place(plane)
    return f"{title}, {plane.view} plane{f' at {place}' if place else ''}; patient's {where}"
