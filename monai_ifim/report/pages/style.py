"""Style of the figures of a page, and their conversion to small, reproducible PNG files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

from monai_ifim.display import numbers, style
from monai_ifim.display.fonts import legible
from monai_ifim.report.pages.texts import shortened

__all__ = [
    "LARGEST_BYTES",
    "LONGEST_TITLE",
    "MOST_COLUMNS",
    "figure_name",
    "label_rows",
    "log_axis",
    "mark_empty",
    "new_figure",
    "page_style",
    "panels",
    "small_png",
    "tick_text",
]

LARGEST_BYTES = 150_000
RESOLUTIONS = (110, 96, 84, 72)  # dots per inch, tried in turn until the file is small enough; text needs 72
PACKED = np.array([65536, 256, 1])
COLORS = 256  # of the palette; full colour takes three times the bytes
MOST_COLUMNS = 3  # panels side by side
LONGEST_TITLE = 44  # characters of a name above a panel


SETTINGS: Mapping[Any, Any] = MappingProxyType(
    {
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
    }
)


def page_style(names: Iterable[str] = ()) -> AbstractContextManager[None]:
    """The style of all figures of a page inside; the caller's settings afterwards. names: as `display.style.drawing`."""
    return style.drawing(SETTINGS, names)


def figure_name(name: str, longest: int) -> str:
    """A name from outside on one line of a figure, of at most `longest` characters, as `display.fonts.legible` writes it."""
    return legible(shortened(" ".join(name.split()), longest))


def new_figure(width: float, height: float, layout: Literal["constrained", "compressed"] = "constrained") -> Figure:
    """An empty figure of this size in inches, for Agg. layout: "compressed" for panels of fixed shape."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def panels(number: int) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels that share their vertical axis, MOST_COLUMNS in a row."""
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
    """Label the vertical axis of the leftmost panel of each row of `panels`."""
    for axes in grid[::MOST_COLUMNS]:
        axes.set_ylabel(text)


def mark_empty(axes: Axes) -> None:
    """Write n/a into a panel without data."""
    axes.text(0.5, 0.5, "n/a", transform=axes.transAxes, ha="center", va="center", color="#555555")
    axes.set_xticks([])


def small_png(figure: Figure, maps: Sequence[str] = ()) -> tuple[bytes, tuple[int, int]]:
    """PNG file of a figure, in the finest of RESOLUTIONS that stays below LARGEST_BYTES, and its (width, height) in pixels.

    If none does, the file is larger. maps: colour maps in the figure: each gets an equal share of the palette, and the margins
    are cut. Without maps, the palette holds the most frequent colours.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # the layout is computed once for all resolutions
    content, size, previous = b"", (0, 0), 0
    for resolution in RESOLUTIONS:
        if previous and len(content) * (RESOLUTIONS[-1] / previous) ** 2 > LARGEST_BYTES:
            break  # bytes shrink with the pixels at most: not even the coarsest resolution would do
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


def log_axis(axes: Axes) -> None:
    """Make the vertical axis logarithmic, labelled at powers of ten; zeros are not drawn."""
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_formatter(FuncFormatter(tick_text))
    axes.yaxis.set_minor_formatter(NullFormatter())


def tick_text(value: float, _: int | None = None) -> str:
    """The label of a tick, for matplotlib's FuncFormatter."""
    return numbers.as_given(value)


def _in_colors_of(image: Image.Image, maps: Sequence[str]) -> Image.Image:
    """The image in a palette of equally many colours of each map; Pillow's own quantisation would tint white."""
    palette = np.concatenate([colormaps[name](np.linspace(0, 1, COLORS // len(maps)), bytes=True)[:, :3] for name in maps])
    pixels = np.asarray(image).astype(np.int64)
    codes, places = np.unique(pixels @ PACKED, return_inverse=True)  # one integer per colour sorts faster than three
    seen = codes[:, None] // PACKED % 256
    distances = np.square(seen[:, None] - palette[None].astype(np.int64)).sum(axis=2)
    indices = distances.argmin(axis=1).astype(np.uint8)[places].reshape(pixels.shape[:2])
    found = Image.fromarray(indices).convert("P")
    found.putpalette(palette.astype(np.uint8).tobytes())
    return found
