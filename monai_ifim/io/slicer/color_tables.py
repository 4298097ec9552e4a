"""Colour tables for maps shown over anatomy: perceptually uniform, and transparent for small values.

3D Slicer's slice views treat a table's opacity as a switch: an entry is transparent or shown at the layer's opacity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.display.style import DIVERGING, LABEL_COLORS, SEQUENTIAL

ENTRIES = 256
CLEAR_SHARE = 0.2  # share of the window, from its low end or, for signed maps, from zero, that is transparent
DARKER = 0.75  # share of its brightness that a label's colour keeps when it is used again

Table = npt.NDArray[np.uint8]


def sensitivity_table() -> Table:
    """RGBA [256, 4] of matplotlib's viridis; its low end is transparent, so that anatomy without influence is shown unchanged."""
    table = _colors(SEQUENTIAL)
    table[: round(CLEAR_SHARE * ENTRIES), 3] = 0
    return table


def signed_table() -> Table:
    """RGBA [256, 4] of matplotlib's coolwarm, blue below zero and red above, which colour-blind people can distinguish; a
    band around zero, the table's middle, is transparent."""
    table = _colors(DIVERGING)
    distance = np.abs(np.arange(ENTRIES) - (ENTRIES - 1) / 2) / (ENTRIES / 2)
    table[distance < CLEAR_SHARE, 3] = 0
    return table


def labels_table(labels: Sequence[Mapping[str, Any]], background: int | None) -> Table:
    """RGBA [labels, 4] of a segmentation: the background transparent, LABEL_COLORS for the largest labels and then again, ever
    darker. labels: of the sidecar, in the order of their values."""
    table = np.zeros((len(labels), 4), dtype=np.uint8)
    largest_first = sorted((each for each in labels if each["value"] != background), key=lambda each: -each["voxels"])
    for place, label in enumerate(largest_first):
        round_, color = divmod(place, len(LABEL_COLORS))
        share = DARKER**round_
        table[label["value"]] = [*(round(share * part) for part in bytes.fromhex(LABEL_COLORS[color][1:])), 255]
    return table


def label_names(labels: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of labels without the spaces that part the fields of a .ctbl."""
    return tuple("_".join(str(each["name"]).split()) or str(each["value"]) for each in labels)


def table_text(name: str, table: Table, names: Sequence[str] = ()) -> str:
    """The table as 3D Slicer's .ctbl: a line `index label R G B A` for every entry; name: one line without personal data;
    names: of the entries, by default their numbers."""
    named = names or [f"{i:03d}" for i in range(len(table))]
    lines = [f"{i} {named[i]} {red} {green} {blue} {alpha}" for i, (red, green, blue, alpha) in enumerate(table.tolist())]
    return "\n".join((f"# Color table file: {name}", f"# {len(table)} values", *lines)) + "\n"


def _colors(name: str) -> Table:
    import matplotlib

    colormap: Any = matplotlib.colormaps[name].resampled(ENTRIES)
    table: Table = np.rint(255 * colormap(np.arange(ENTRIES))).astype(np.uint8)
    return table
