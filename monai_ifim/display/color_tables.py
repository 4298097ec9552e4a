"""Colour tables for maps shown over anatomy in the viewer, in scenes and in notebooks: perceptually uniform, and transparent for
small values.

3D Slicer's slice views and NiiVue treat a table's opacity as a switch: an entry is transparent or shown at the layer's opacity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.display.style import DIVERGING, SEQUENTIAL

__all__ = ["CLEAR_SHARE", "OPACITY", "Table", "sensitivity_table", "signed_table"]

ENTRIES = 256
CLEAR_SHARE = 0.2  # share of the window, from its low end or, for signed maps, from zero, that is transparent
OPACITY = 0.6  # of a map over an image, until people choose another

Table = npt.NDArray[np.uint8]


def sensitivity_table(colors: str = SEQUENTIAL) -> Table:
    """RGBA [256, 4] of a colour map of matplotlib, viridis by default; its low end is transparent, so that anatomy without
    influence is shown unchanged."""
    table = _colors(colors)
    table[: round(CLEAR_SHARE * ENTRIES), 3] = 0
    return table


def signed_table(colors: str = DIVERGING) -> Table:
    """RGBA [256, 4] of a colour map of matplotlib, by default coolwarm, blue below zero and red above, which colour-blind people
    can distinguish; a band around zero, the table's middle, is transparent."""
    table = _colors(colors)
    distance = np.abs(np.arange(ENTRIES) - (ENTRIES - 1) / 2) / (ENTRIES / 2)
    table[distance < CLEAR_SHARE, 3] = 0
    return table


def _colors(name: str) -> Table:
    import matplotlib

    colormap: Any = matplotlib.colormaps[name].resampled(ENTRIES)
    table: Table = np.rint(255 * colormap(np.arange(ENTRIES))).astype(np.uint8)
    return table
