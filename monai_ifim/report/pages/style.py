"""How figures look, and how they become small PNG files that are the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter
from PIL import Image

from monai_ifim.display import numbers
from monai_ifim.report.experiment.records import Array, Curve

__all__ = [
    "LARGEST_BYTES",
    "LINES",
    "MOST_COLUMNS",
    "VERDICTS",
    "Line",
    "Mark",
    "draw_band",
    "drawing",
    "label_rows",
    "legend_handle",
    "log_axis",
    "mark_empty",
    "new_figure",
    "norm_axis",
    "note_images",
    "panels",
    "png",
]

LARGEST_BYTES = 150_000
RESOLUTIONS = (110, 96, 84, 72)  # dots per inch, tried in turn until the file is small enough; below, text cannot be read
PACKED = np.array([65536, 256, 1])
COLORS = 256  # of a palette file, a third of the bytes of full colour
LABEL_GAP = 0.35  # decades between two labels of an axis of norms
MOST_COLUMNS = 3  # panels side by side


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

SETTINGS: Mapping[Any, Any] = MappingProxyType(
    {
        "font.family": "DejaVu Sans",
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.labelsize": 8.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#444444",
        "axes.grid": False,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.5,
        "lines.markersize": 4.5,
        "text.parse_math": False,  # names of tasks may hold a dollar sign
    }
)


@contextmanager
def drawing() -> Iterator[None]:
    """matplotlib's own defaults and SETTINGS inside, whatever a matplotlibrc says; the caller's settings afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(dict(SETTINGS))
        yield


def new_figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure of this size in inches, drawn by Agg; "compressed" is for panels of fixed shape."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(number: int) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels of one height axis, three in a row at most."""
    columns = min(MOST_COLUMNS, number)
    lines = -(-number // columns)
    figure = new_figure(max(6.4, 3.1 * columns + 0.4), 2.9 * lines + 0.7)
    grid = list(figure.subplots(lines, columns, squeeze=False, sharey=True).flat)
    for axes in grid[number:]:
        axes.set_axis_off()
    for axes in grid[:number]:
        axes.grid(True, axis="y", color="#DDDDDD", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure, grid[:number]


def label_rows(grid: Sequence[Axes], text: str) -> None:
    """Name the height axis of the panels of `panels` at the left end of each row."""
    for axes in grid[::MOST_COLUMNS]:
        axes.set_ylabel(text)


def mark_empty(axes: Axes) -> None:
    """Say in a panel that there is nothing to draw."""
    axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", va="center", color="#555555")
    axes.set_xticks([])


def png(figure: Figure, maps: Sequence[str] = ()) -> tuple[bytes, tuple[int, int]]:
    """PNG file of a figure, at the finest resolution that keeps it below LARGEST_BYTES, and its (width, height) in pixels.

    Where none does, it is larger. maps: colour maps that the figure holds, whose colours get an equal share of the palette
    each, and its margins are cut; without them the palette follows the figure's most frequent colours.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is found once, not anew for every resolution
    content, size, previous = b"", (0, 0), 0
    for resolution in RESOLUTIONS:
        if previous and len(content) * (RESOLUTIONS[-1] / previous) ** 2 > LARGEST_BYTES:
            break  # bytes fall with the number of pixels at most: not even the coarsest would do
        if previous and len(content) * (resolution / previous) ** 2 > LARGEST_BYTES:
            continue
        full, small = io.BytesIO(), io.BytesIO()
        cut: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.04} if maps else {}
        figure.savefig(full, format="png", dpi=resolution, **cut)
        image: Image.Image = Image.open(full).convert("RGB")
        image = _in_colors_of(image, maps) if maps else image.quantize(COLORS, dither=Image.Dither.NONE)
        image.save(small, format="png", optimize=True)
        content, size, previous = small.getvalue(), image.size, resolution
        if len(content) < LARGEST_BYTES:
            break
    return content, size


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
    axes.xaxis.set_major_formatter(FuncFormatter(_plain_number))
    axes.xaxis.set_minor_formatter(NullFormatter())


def log_axis(axes: Axes) -> None:
    """A logarithmic axis of values, labelled at powers of ten; zeros are not drawn."""
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(FuncFormatter(_plain_number))
    axes.yaxis.set_minor_formatter(NullFormatter())


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


def _plain_number(value: float, _: int | None = None) -> str:
    return numbers.as_given(value)


def _in_colors_of(image: Image.Image, maps: Sequence[str]) -> Image.Image:
    """Each pixel in the nearest of equally many colours of every map; Pillow's own search is too coarse to keep white white."""
    palette = np.concatenate([colormaps[name](np.linspace(0, 1, COLORS // len(maps)), bytes=True)[:, :3] for name in maps])
    pixels = np.asarray(image).astype(np.int64)
    codes, places = np.unique(pixels @ PACKED, return_inverse=True)  # one number per colour sorts much faster than three
    seen = codes[:, None] // PACKED % 256
    distances = np.square(seen[:, None] - palette[None].astype(np.int64)).sum(axis=2)
    indices = distances.argmin(axis=1).astype(np.uint8)[places].reshape(pixels.shape[:2])
    found = Image.fromarray(indices).convert("P")
    found.putpalette(palette.astype(np.uint8).tobytes())
    return found
