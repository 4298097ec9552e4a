"""How all figures and maps look: colour maps, colours, and matplotlib's settings.

Standard library only until something is drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

from monai_ifim.display.fonts import FIRST_FONT, font_families

__all__ = [
    "BLUE",
    "DIVERGING",
    "GRAY",
    "LABEL_COLORS",
    "LIGHT_BLUE",
    "MUTED",
    "ORANGE",
    "OTHER_LABELS",
    "SEQUENTIAL",
    "VERMILION",
    "drawing",
]

# matplotlib's names: for images, for values of both signs about zero, for values from zero up. Steps of colour are even, and both
# signs differ without red-green colour sight too (tests/display/test_colors.py); coolwarm is after Moreland (2009).
GRAY, DIVERGING, SEQUENTIAL = "gray", "coolwarm", "viridis"
MUTED = "Greys_r"  # for the maps of a saturated answer in place of the last two: their spots are no findings

# after Okabe and Ito (2008): told apart by all kinds of colour sight
LABEL_COLORS = ("#E69F00", "#56B4E9", "#009E73", "#D55E00", "#CC79A7", "#F0E442", "#0072B2")  # of labels, the largest first
OTHER_LABELS = "#BBBBBB"  # of all further ones
BLUE, LIGHT_BLUE, ORANGE, VERMILION = "#0072B2", "#A9C9DE", "#F0A020", "#D55E00"

BASE: Mapping[Any, Any] = MappingProxyType(
    {
        "font.family": FIRST_FONT,
        "font.size": 8,
        "axes.titlesize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "text.parse_math": False,  # names of classes, tasks and units may hold a dollar sign
    }
)


@contextmanager
def drawing(settings: Mapping[Any, Any] | None = None, names: Iterable[str] = ()) -> Iterator[None]:
    """matplotlib's defaults, BASE and these settings inside, whatever a matplotlibrc says; the caller's settings afterwards.

    names: texts from outside that will be drawn, in any script: fonts are chosen that have their characters.
    """
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**BASE, "font.family": font_families(names), **(settings or {})})
        yield
