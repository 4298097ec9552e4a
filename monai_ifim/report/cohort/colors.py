"""The colours of maps on the page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from monai_ifim.display.style import DIVERGING, GRAY, MUTED, SEQUENTIAL
from monai_ifim.io.planes import LABELS

__all__ = ["COLORS", "color_stops", "color_table", "colors_of"]

COLORS: Mapping[str, str] = MappingProxyType({"grey": GRAY, "diverging": DIVERGING, "sequential": SEQUENTIAL, "muted": MUTED})
MAP_COLORS: Mapping[str, str] = MappingProxyType(
    {"high": "diverging", "eigenvector": "diverging", "sensitivity": "sequential", LABELS: LABELS}
)  # all others are grey
STOPS = 17  # colours of a colour bar's gradient; odd: zero is one of them


def colors_of(kind: str, saturated: bool = False) -> str:
    """How a kind of map is coloured: a key of COLORS, or "labels". saturated: nothing moves the answer, and maps are muted."""
    colors = MAP_COLORS.get(kind, "grey")
    return "muted" if saturated and colors not in ("grey", LABELS) else colors


@cache
def color_table(colors: str) -> npt.NDArray[np.uint8]:
    """The 256 colours of a key of COLORS, [256, 3], red, green and blue."""
    table: npt.NDArray[np.uint8] = colormaps[COLORS[colors]](np.arange(256), bytes=True)[:, :3]
    return table


@cache
def color_stops(colors: str) -> str:
    """Colours of a colour bar from low to high, as the list of a CSS gradient."""
    table = color_table(colors)[np.linspace(0, 255, STOPS).round().astype(int)]
    return ", ".join("#" + "".join(f"{int(part):02x}" for part in color) for color in table)
