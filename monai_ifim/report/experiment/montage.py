"""Figure of one cell: example images, their parts, the most sensitive direction, and maps of other methods."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_ifim.display.numbers import number
from monai_ifim.display.style import DIVERGING, GRAY, SEQUENTIAL
from monai_ifim.io.errors import InputError
from monai_ifim.report.pages.style import new_figure
from monai_ifim.report.pages.texts import shortened

__all__ = ["COLOR_MAPS", "MAPS", "Montage", "montage_figure", "read_montage"]

# array in the file, head of the column, unit where it has one
MAPS: tuple[tuple[str, str], ...] = (
    ("image", "image x"),
    ("high", "x_high, the part in the\nleading eigenspace"),
    ("low", "x_low, the rest"),
    ("eigenvector", "u₁, the most\nsensitive direction"),
    ("sensitivity", "sensitivity, diag F\n(nats per squared unit)"),
    ("integrated_gradients", "integrated gradients"),
    ("gradcam", "GradCAM"),
)
GREY = ("image", "low")  # both in the same grey window, as a reader of images is used to
LONGEST_NAME = 20  # letters beside a row
CLIPPED = 0.5  # percent at either end that a colour scale leaves out, so that one hot pixel does not blacken the rest
COLOR_MAPS = (GRAY, SEQUENTIAL, DIVERGING)

Side = Literal["left", "center", "right"]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Montage:
    """Up to four images. maps: [n, height, width] under the names of MAPS; the others [n]."""

    maps: dict[str, Array]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    predictions: tuple[str, ...]
    probabilities: Array

    def part(self, start: int, stop: int) -> Montage:
        """Only these images."""
        return Montage(
            {name: values[start:stop] for name, values in self.maps.items()},
            self.names[start:stop],
            self.labels[start:stop],
            self.predictions[start:stop],
            self.probabilities[start:stop],
        )


@dataclass(frozen=True)
class Scale:
    """Colours from low to high; ends: what is printed below the two ends (and the middle) of the colour bar."""

    colors: str
    low: float
    high: float
    marks: tuple[str, ...]


def read_montage(path: Path) -> Montage | None:
    """The arrays of a montage, None where there is no file; raises InputError where it does not hold what it should."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            content: dict[str, Any] = {name: stored[name] for name in stored.files}
        montage = Montage(
            maps={name: np.asarray(content[name], dtype=np.float64) for name, _ in MAPS},
            names=tuple(map(str, content["names"])),
            labels=tuple(map(str, content["labels"])),
            predictions=tuple(map(str, content["predictions"])),
            probabilities=np.asarray(content["probabilities"], dtype=np.float64),
        )
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: no montage ({error}); run this cell again.") from error
    shapes = {values.shape for values in montage.maps.values()}
    lengths = {len(montage.names), len(montage.labels), len(montage.predictions), len(montage.probabilities)}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 3 or lengths != {shape[0]}:
        raise InputError(f"{path}: arrays of different shapes, where all maps must be [n, height, width]; run this cell again.")
    return montage if shape[0] else None


def montage_figure(montage: Montage) -> Figure:
    """A row per image and a column per map, each with its colour scale printed below."""
    images, height, width = next(iter(montage.maps.values())).shape
    tile = 1.55
    row_height = tile * min(1.6, height / width) + 0.42
    figure = new_figure(1.25 + tile * len(MAPS), 0.6 + row_height * images, layout="compressed")
    grid = figure.subplots(images, len(MAPS), squeeze=False)
    for row in range(images):
        for column, (name, head) in enumerate(MAPS):
            axes = grid[row, column]
            _tile(axes, montage.maps[name][row], _scale(montage, name, row))
            if row == 0:
                axes.set_title(head, fontsize=8)
        _describe(grid[row, 0], montage, row)
    return figure


def _describe(axes: Axes, montage: Montage, row: int) -> None:
    lines = (
        shortened(montage.names[row], LONGEST_NAME),
        f"true: {shortened(montage.labels[row], LONGEST_NAME)}",
        f"answer: {shortened(montage.predictions[row], LONGEST_NAME)}",
        f"probability: {number(float(montage.probabilities[row]))}",
    )
    axes.set_ylabel("\n".join(lines), rotation=0, ha="right", va="center", fontsize=7.5, labelpad=6)


def _scale(montage: Montage, name: str, row: int) -> Scale | None:
    """Grey for images; otherwise one hue for what has one sign, two about zero for what has both; None for all-NaN maps."""
    values = np.concatenate([montage.maps[key][row].ravel() for key in (GREY if name in GREY else (name,))])
    values = values[np.isfinite(values)]
    if len(values) == 0 or not np.isfinite(montage.maps[name][row]).any():
        return None
    low, high = (float(end) for end in np.percentile(values, [CLIPPED, 100 - CLIPPED]))
    if name in GREY:
        return Scale(GRAY, low, high, (number(low), number(high)))
    if values.min() >= 0:
        top = high if high > 0 else float(values.max())
        return Scale(SEQUENTIAL, 0.0, top, ("0", number(top)))
    top = float(np.percentile(np.abs(values), 100 - CLIPPED)) or float(np.abs(values).max())
    return Scale(DIVERGING, -top, top, (number(-top), "0", number(top)))


def _tile(axes: Axes, values: Array, scale: Scale | None) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if scale is None:
        axes.set_facecolor("#EEEEEE")
        axes.set_box_aspect(values.shape[0] / values.shape[1])
        axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", va="center", color="#555555")
        return
    top = scale.high if scale.high > scale.low else scale.low + 1.0
    axes.imshow(np.ma.masked_invalid(values), cmap=scale.colors, vmin=scale.low, vmax=top, interpolation="nearest")
    bar = axes.inset_axes((0.0, -0.09, 1.0, 0.05))
    bar.imshow(np.linspace(0, 1, 128)[None], cmap=scale.colors, aspect="auto", vmin=0, vmax=1)
    bar.set_yticks([])
    places = np.linspace(-0.5, 127.5, len(scale.marks))
    bar.set_xticks(places, scale.marks, fontsize=6.5)
    bar.tick_params(axis="x", length=0, pad=1.5)
    for label, side in zip(bar.get_xticklabels(), _sides(len(scale.marks)), strict=True):
        label.set_horizontalalignment(side)
    for spine in bar.spines.values():
        spine.set_visible(False)


def _sides(marks: int) -> tuple[Side, ...]:
    return ("left", "right") if marks == 2 else ("left", "center", "right")
