"""Lines of families and marks of verdicts in the figures of an experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from monai_ifim.display import numbers
from monai_ifim.evaluation.measuring.families import FAMILIES, Line
from monai_ifim.evaluation.records import Array, Curve
from monai_ifim.report.pages.style import tick_text

__all__ = ["VERDICTS", "Mark", "draw_band", "legend_handle", "norm_axis", "note_images"]

LABEL_GAP = 0.35  # decades between two labels of an axis of norms


@dataclass(frozen=True)
class Mark:
    """Mark of a verdict; verdicts differ in shape, not only in color."""

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


def norm_axis(axes: Axes, norms: Array, zero: bool) -> None:
    """A logarithmic axis of relative norms with ticks at the grid's values, linear below the smallest if `zero` is shown."""
    positive = norms[norms > 0]
    if len(positive) == 0:
        return
    if zero:
        axes.set_xscale("symlog", linthresh=float(positive.min()), linscale=0.6)
        axes.set_xlim(-0.15 * float(positive.min()), 1.12 * float(positive.max()))
    else:
        axes.set_xscale("log")
        axes.set_xlim(float(positive.min()) / 1.15, 1.15 * float(positive.max()))
    labelled = [float(positive.max())]
    for norm in np.sort(positive)[::-1]:
        if np.log10(labelled[-1] / norm) >= LABEL_GAP:
            labelled.append(float(norm))
    axes.xaxis.set_major_locator(FixedLocator([*([0.0] if zero else []), *labelled]))
    axes.xaxis.set_minor_locator(FixedLocator(positive.tolist()))
    axes.xaxis.set_major_formatter(FuncFormatter(tick_text))
    axes.xaxis.set_minor_formatter(NullFormatter())


def draw_band(axes: Axes, curve: Curve, strong: bool = True) -> None:
    """Mean and 95 % band of a curve, with gaps where there is no value."""
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
    """Write the number of images above a panel's right end."""
    known = sorted({int(n) for curve in curves for n in curve.images[np.isfinite(curve.mean)] if np.isfinite(n)})
    if not known:
        text = "number of images not recorded"
    elif len(known) == 1:
        text = numbers.counted(known[0], "image")
    else:
        text = f"{numbers.count(known[0])} to {numbers.counted(known[-1], 'image')}"
    axes.text(1.0, 1.01, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=7.5, color="#555555")


def legend_handle(name: str, text: str) -> Line2D:
    """Legend entry of a family's line."""
    line = _line(name)
    face = line.color if line.filled else "white"
    style: dict[str, Any] = {"linestyle": line.dashes, "marker": line.marker, "markerfacecolor": face}
    return Line2D([], [], color=line.color, label=text, **style)


def _line(name: str) -> Line:
    line = FAMILIES[name].line
    if line is None:
        raise ValueError(f"family {name} has no curve")
    return line
