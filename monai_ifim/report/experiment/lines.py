"""How curves and verdicts are drawn in the figures of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from monai_ifim.display import numbers
from monai_ifim.evaluation.measuring.families import FAMILIES, Line
from monai_ifim.evaluation.records import Curve

__all__ = ["VERDICTS", "Mark", "draw_band", "legend_handle", "note_images"]


@dataclass(frozen=True)
class Mark:
    """How a verdict is drawn: the shape says it without the color."""

    color: str
    marker: str
    filled: bool


VERDICTS: Mapping[str, Mark] = MappingProxyType(
    {
        "holds": Mark("#00664B", "o", True),
        "open": Mark("#555555", "o", False),
        "reverse": Mark("#B34700", "v", True),
    }
)


def draw_band(axes: Axes, curve: Curve, strong: bool = True) -> None:
    """Mean and 95 % band of a curve, interrupted where there is no value."""
    line = _line(curve.family)
    face = line.color if line.filled else "white"
    axes.fill_between(curve.relative_norm, curve.low, curve.high, color=line.color, alpha=0.22 if strong else 0.10, linewidth=0)
    axes.plot(
        curve.relative_norm,
        curve.mean,
        color=line.color,
        linestyle=line.dashes,
        marker=line.marker,
        markerfacecolor=face,
        linewidth=1.9 if strong else 1.2,
        zorder=3 if strong else 2,
    )


def note_images(axes: Axes, curves: Sequence[Curve]) -> None:
    """Say above a panel's right end how many images stand behind its points."""
    known = sorted({int(n) for curve in curves for n in curve.images[np.isfinite(curve.mean)] if np.isfinite(n)})
    if not known:
        text = "number of images not recorded"
    elif len(known) == 1:
        text = numbers.counted(known[0], "image")
    else:
        text = f"{numbers.count(known[0])} to {numbers.counted(known[-1], 'image')}"
    axes.text(1.0, 1.01, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=7.5, color="#555555")


def legend_handle(name: str, text: str) -> Line2D:
    """What a family's line looks like in a legend."""
    line = _line(name)
    face = line.color if line.filled else "white"
    style: dict[str, Any] = {"linestyle": line.dashes, "marker": line.marker, "markerfacecolor": face}
    return Line2D([], [], color=line.color, label=text, **style)


def _line(name: str) -> Line:
    line = FAMILIES[name].line
    if line is None:
        raise ValueError(f"family {name} has no curve")
    return line
