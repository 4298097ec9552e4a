"""How families and verdicts are drawn in the figures of an experiment."""

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
from monai_ifim.report.experiment.records import Array, Curve
from monai_ifim.report.pages.style import tick_text

__all__ = ["LINES", "VERDICTS", "Line", "Mark", "draw_band", "legend_handle", "norm_axis", "note_images"]

LABEL_GAP = 0.35  # decades between two labels of an axis of norms


@dataclass(frozen=True)
class Line:
    """How a family is drawn; color, dashes and marker each tell it from all others of its panel."""

    color: str
    dashes: str | tuple[float, tuple[float, ...]]
    marker: str
    filled: bool = True


@dataclass(frozen=True)
class Mark:
    """How a verdict is drawn: the shape says it without the color."""

    color: str
    marker: str
    filled: bool


# Okabe and Ito (2008), readable with every common colour vision deficiency; brown and grey stand in for their yellow
LINES: Mapping[str, Line] = MappingProxyType(
    {
        "noise_high": Line("#D55E00", "solid", "o"),
        "noise_low": Line("#0072B2", (0, (5, 2)), "s"),
        "noise_random": Line("#000000", (0, (1, 1.5)), "x"),
        "noise_trailing": Line("#009E73", (0, (6, 1.5, 1, 1.5)), "^"),
        "noise_twin": Line("#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "D", filled=False),
        "pixels_integrated_gradients": Line("#E69F00", (0, (6, 1.5, 1, 1.5)), "^"),
        "pixels_saliency": Line("#56B4E9", (0, (3, 1, 1, 1, 1, 1)), "D", filled=False),
        "pixels_gradcam": Line("#7A4B00", (0, (1, 1.5)), "x"),
        "pixels_occlusion": Line("#666666", (0, (8, 3)), "v", filled=False),
        "attenuate_high": Line("#D55E00", "solid", "o"),
        "attenuate_low": Line("#0072B2", (0, (5, 2)), "s"),
        "step_plus": Line("#009E73", "solid", "^"),
        "step_minus": Line("#CC79A7", (0, (5, 2)), "v"),
    }
)

VERDICTS: Mapping[str, Mark] = MappingProxyType(
    {
        "holds": Mark("#00664B", "o", True),
        "open": Mark("#555555", "o", False),
        "reverse": Mark("#B34700", "v", True),
    }
)


def norm_axis(axes: Axes, norms: Array, zero: bool) -> None:
    """A logarithmic axis of relative norms with ticks at the grid's values, linear below the smallest where `zero` is shown."""
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
    """Mean and 95 % band of a curve, interrupted where there is no value."""
    line = LINES[curve.family]
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
    line = LINES[name]
    face = line.color if line.filled else "white"
    style: dict[str, Any] = {"linestyle": line.dashes, "marker": line.marker, "markerfacecolor": face}
    return Line2D([], [], color=line.color, label=text, **style)
