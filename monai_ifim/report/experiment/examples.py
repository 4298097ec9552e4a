"""Figure of example images: their parts, the most sensitive direction and attributions, as planes in the world frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from monai_ifim.display.numbers import number, unit_text
from monai_ifim.display.sides import letter_places, side_text
from monai_ifim.display.style import DIVERGING, GRAY, SEQUENTIAL
from monai_ifim.display.vocabulary import COMPONENT, HIGH, LOW, SENSITIVITY_MAP
from monai_ifim.evaluation.records import CellRecord, Example
from monai_ifim.io.errors import InputError
from monai_ifim.io.planes import CasePlanes, Plane, PlaneMap, read_planes
from monai_ifim.report.pages.style import figure_name, new_figure

__all__ = ["COLOR_MAPS", "TITLES", "StoredExample", "example_figure", "read_examples"]

COLOR_MAPS = (GRAY, SEQUENTIAL, DIVERGING)
TITLES = {
    "image": "image x",
    "high": f"{HIGH.label},\nx_high",
    "low": f"{LOW.label},\nx_low",
    "eigenvector": f"{COMPONENT.label} 1, the most\nsensitive direction u₁",
    "sensitivity": f"{SENSITIVITY_MAP.label},\ndiag F",
    "integrated_gradients": "integrated\ngradients",
    "gradcam": "GradCAM",
}
GREY = ("image", "low")
TILE, COLUMN, LEFT, TOP, GAP, BELOW = 1.45, 1.55, 1.6, 0.5, 0.12, 0.55  # inches
TALLEST = 1.3  # height of a plane over the width of a tile
FLAT = 0.15  # height over width below which letters at top and bottom would cover a plane
LONGEST_NAME = 20  # letters beside a row
NORMALS = {"sagittal": 0, "coronal": 1, "axial": 2}  # RAS axis of each view

Side = Literal["left", "center", "right"]


@dataclass(frozen=True, eq=False)
class StoredExample:
    """An example image with its planes."""

    example: Example
    planes: CasePlanes

    @property
    def views(self) -> int:
        """Number of planes of each map."""
        return len(self.planes.maps[0].planes)

    def of(self, name: str) -> PlaneMap | None:
        """The planes of a map, None if it was not made."""
        return next((found for found in self.planes.maps if found.kind == name), None)


def read_examples(folder: Path, cell: CellRecord) -> list[StoredExample]:
    """The cell's examples that are stored below the folder of the experiment; raises InputError for a damaged file."""
    found = []
    for example in cell.examples:
        if any(Path(name).name != name for name in (cell.task, cell.architecture, example.image)):
            raise InputError(f"{folder.name}: {example.image!r} of {cell.task} is not a file name; run this cell again.")
        path = folder / "cells" / cell.task / cell.architecture / "images" / f"{example.image}.npz"
        if not path.is_file():
            continue
        try:
            planes = read_planes(path)
        except InputError as error:
            raise InputError(f"{path}: {error} Run this cell again.") from error
        if not planes.maps or len({len(plane_map.planes) for plane_map in planes.maps}) != 1 or not planes.maps[0].planes:
            raise InputError(f"{path}: maps with different numbers of planes; run this cell again.")
        found.append(StoredExample(example, planes))
    return found


def example_figure(examples: Sequence[StoredExample]) -> Figure:
    """A column per map; per image a row per view, with the colour scale of each map below the last one.

    All planes of an image have one scale. Axes are placed by hand: a layout engine takes seconds for so many.
    """
    rows = [(one, view, *_size(one, view)) for one in examples for view in range(one.views)]
    gaps = [BELOW if view == one.views - 1 else GAP for one, view, *_ in rows]
    width, height = LEFT + COLUMN * len(TITLES), TOP + sum(tall for *_, tall in rows) + sum(gaps)
    figure = new_figure(width, height)
    figure.set_layout_engine("none")
    top = height - TOP
    for row, (one, view, wide, tall) in enumerate(rows):
        for column, (name, title) in enumerate(TITLES.items()):
            left = LEFT + COLUMN * column + (TILE - wide) / 2
            axes = figure.add_axes((left / width, (top - tall) / height, wide / width, tall / height))
            _tile(axes, one, name, view, (wide, tall))
            if row == 0:
                axes.set_title(title, fontsize=8)
            if column == 0:
                _describe(axes, one, view)
        top -= tall + gaps[row]
    return figure


def _size(one: StoredExample, view: int) -> tuple[float, float]:
    """Width and height of a plane in inches; the widest or tallest plane of the image fills its tile."""
    extents = [plane.extent for plane in one.planes.maps[0].planes]
    per_inch = max(max(across for _, across in extents), max(down for down, _ in extents) / TALLEST) / TILE
    down, across = extents[view]
    return across / per_inch, down / per_inch


def _tile(axes: Axes, one: StoredExample, name: str, view: int, size: tuple[float, float]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    found = one.of(name)
    if found is None:
        axes.set_facecolor("#EEEEEE")
        axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", va="center", color="#555555")
        return
    plane = found.planes[view]
    axes.imshow(plane.values, cmap=_colors(found), vmin=0, vmax=255, interpolation="nearest", aspect="auto")
    if name == "image":
        _write_edges(axes, plane, _spot(one, view))
    if view == one.views - 1:
        _color_bar(axes, found, *size)


def _spot(one: StoredExample, view: int) -> tuple[float, float] | None:
    """The most sensitive place of a plane, (across, down) as shares of it; None without a map of the sensitivity."""
    found = one.of("sensitivity")
    if found is None:
        return None
    values = found.planes[view].values
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    return (int(column) + 0.5) / values.shape[1], (int(row) + 0.5) / values.shape[0]


def _write_edges(axes: Axes, plane: Plane, spot: tuple[float, float] | None) -> None:
    """The patient's sides at the edges of a plane, beside its most sensitive spot."""
    aligned: tuple[tuple[Side, Literal["top", "center", "bottom"]], ...] = (
        ("left", "center"),
        ("right", "center"),
        ("center", "top"),
        ("center", "bottom"),
    )
    shown = plane.edges if plane.extent[0] / plane.extent[1] >= FLAT else (*plane.edges[:2], "", "")
    for letter, (x, y), (across, up) in zip(shown, letter_places(spot), aligned, strict=True):
        outline = [withStroke(linewidth=1.6, foreground="black")]
        axes.text(x, 1 - y, letter, transform=axes.transAxes, ha=across, va=up, fontsize=7, color="white", path_effects=outline)


def _colors(found: PlaneMap) -> str:
    if found.kind in GREY:
        return GRAY
    return DIVERGING if found.window[0] < 0 else SEQUENTIAL


def _color_bar(axes: Axes, found: PlaneMap, wide: float, tall: float) -> None:
    """Colour scale below a plane of this size in inches."""
    low, high = found.window
    marks = [number(low), number(high)] if found.kind in GREY or low >= 0 else [number(low), "0", number(high)]
    bar = axes.inset_axes(((1 - TILE / wide) / 2, -0.13 / tall, TILE / wide, 0.07 / tall))
    bar.imshow(np.linspace(0, 1, 128)[None], cmap=_colors(found), aspect="auto", vmin=0, vmax=1)
    bar.set_yticks([])
    bar.set_xticks(np.linspace(-0.5, 127.5, len(marks)), marks, fontsize=6.5)
    bar.tick_params(axis="x", length=0, pad=1.5)
    sides: tuple[Side, ...] = ("left", "right") if len(marks) == 2 else ("left", "center", "right")
    for label, side in zip(bar.get_xticklabels(), sides, strict=True):
        label.set_horizontalalignment(side)
    for spine in bar.spines.values():
        spine.set_visible(False)
    if found.unit:
        bar.set_xlabel(unit_text(found.unit), fontsize=6.5, labelpad=1)


def _describe(axes: Axes, one: StoredExample, view: int) -> None:
    """Name and answer beside the first plane of an image, the view beside each that has a place."""
    lines = []
    if view == 0:
        example = one.example
        lines = [
            figure_name(example.image, LONGEST_NAME),
            f"true: {figure_name(example.label, LONGEST_NAME)}",
            f"answer: {figure_name(example.predicted, LONGEST_NAME)}",
            f"probability: {number(example.probability)}",
        ]
    plane = one.planes.maps[0].planes[view]
    if plane.has_frame:
        lines.append(f"{plane.view}, {side_text(plane.offset, NORMALS[plane.view])}")
    axes.set_ylabel("\n".join(lines), rotation=0, ha="right", va="center", fontsize=7.5, labelpad=6)
