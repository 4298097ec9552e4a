"""Colour tables for maps shown over anatomy: perceptually uniform, and transparent for small values.

3D Slicer's slice views treat a table's opacity as a switch: an entry is transparent or shown at the layer's opacity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.display.style import DIVERGING, SEQUENTIAL

ENTRIES = 256
CLEAR_SHARE = 0.2  # share of the window, from its low end or, for signed maps, from zero, that is transparent

Table = npt.NDArray[np.uint8]


def sensitivity_table() -> Table:
    """RGBA [256, 4] of matplotlib's viridis; its low end is transparent, so that anatomy without influence is shown unchanged."""
    table = _colors(SEQUENTIAL)
    table[: round(CLEAR_SHARE * ENTRIES), 3] = 0
    return table


def signed_table() -> Table:
    """RGBA [256, 4] of matplotlib's RdBu_r, blue below zero and red above, which colour-blind people can distinguish; a
    band around zero, the table's middle, is transparent."""
    table = _colors(DIVERGING)
    distance = np.abs(np.arange(ENTRIES) - (ENTRIES - 1) / 2) / (ENTRIES / 2)
    table[distance < CLEAR_SHARE, 3] = 0
    return table


def table_text(name: str, table: Table) -> str:
    """The table as 3D Slicer's .ctbl: a line `index label R G B A` for every entry; name: one line without personal data."""
    lines = [f"{i} {i:03d} {red} {green} {blue} {alpha}" for i, (red, green, blue, alpha) in enumerate(table.tolist())]
    return "\n".join((f"# Color table file: {name}", f"# {len(table)} values", *lines)) + "\n"


def _colors(name: str) -> Table:
    import matplotlib

    colormap: Any = matplotlib.colormaps[name].resampled(ENTRIES)
    table: Table = np.rint(255 * colormap(np.arange(ENTRIES))).astype(np.uint8)
    return table
