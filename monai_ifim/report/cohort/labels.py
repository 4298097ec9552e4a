"""The segmentation on the page: labels drawn over the image, and their legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from PIL import Image

from monai_ifim.display import numbers
from monai_ifim.display.style import LABEL_COLORS, OTHER_LABELS
from monai_ifim.io.segmentation import ShownLabel
from monai_ifim.report.pages.texts import shortened

__all__ = ["LegendRow", "legend", "over_image", "own_color"]

OPACITY = 0.35  # of a label inside of its outline

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LegendRow:
    """A line of the legend: colour as #RRGGBB, name, and the volume as text, empty where unknown."""

    color: str
    name: str
    text: str


def own_color(place: int) -> str:
    """Colour of the label at a place of the legend, from 0, as #RRGGBB."""
    return LABEL_COLORS[place] if place < len(LABEL_COLORS) else OTHER_LABELS


def legend(labels: Sequence[ShownLabel]) -> tuple[LegendRow, ...]:
    """The labels with a colour of their own, and one line for all others; labels: the largest first."""
    own = [LegendRow(color, shortened(label.name), _volume(label)) for color, label in zip(LABEL_COLORS, labels, strict=False)]
    others = labels[len(LABEL_COLORS) :]
    if others:
        ml = [label.ml for label in others if label.ml is not None]
        text = f"{numbers.number(sum(ml))}{numbers.FIRM_SPACE}ml in all" if len(ml) == len(others) else ""
        own.append(LegendRow(OTHER_LABELS, numbers.counted(len(others), "smaller label"), text))
    return tuple(own)


def over_image(labels: Pixels, image: Pixels, shown: Sequence[ShownLabel]) -> Image.Image:
    """Labels [rows, columns] over a grey image: their outlines, and their areas translucent; shown: the largest first."""
    colors = np.zeros((256, 3))
    known = np.zeros(256, dtype=bool)
    for place, label in enumerate(shown):
        colors[label.value] = to_rgb(own_color(place))
        known[label.value] = True
    grey = np.repeat(image[..., None] / 255.0, 3, axis=2)
    weight = known[labels] * np.where(_outline(labels), 1.0, OPACITY)
    mixed = grey + weight[..., None] * (colors[labels] - grey)
    return Image.fromarray(np.rint(255 * mixed).astype(np.uint8))


def _outline(labels: Pixels) -> npt.NDArray[np.bool_]:
    """Pixels with a neighbour, above, below, left or right, of another label."""
    around = np.pad(labels, 1, mode="edge")
    neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    found: npt.NDArray[np.bool_] = np.logical_or.reduce([neighbour != labels for neighbour in neighbours])
    return found


def _volume(label: ShownLabel) -> str:
    """The volume of a label, and what the network expects of it: 12.3 ml (expected 12.5 ml, tolerance 0.6 ml)."""
    if label.ml is None:
        return numbers.counted(label.voxels, "voxel")
    parts = [
        f"{name}{numbers.FIRM_SPACE}{numbers.number(value)}{numbers.FIRM_SPACE}ml"
        for name, value in (("expected", label.expected), ("tolerance", label.tolerance))
        if value is not None
    ]
    return f"{numbers.number(label.ml)}{numbers.FIRM_SPACE}ml" + (f" ({', '.join(parts)})" if parts else "")
