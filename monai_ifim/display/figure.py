"""The figure of a decomposition: spectrum, the network's answer, and panels of maps.

Arrays are drawn as they lie in memory, the first axis down and the second to the right; there is no world frame here.
matplotlib is imported when something is drawn, so that importing this module does not need it.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.display.fonts import legible
from monai_ifim.display.numbers import counted, number, percent, probability, sizes
from monai_ifim.display.panels import ColorScale, Panel, Viewpoint, panels_of
from monai_ifim.display.saturation import SATURATED
from monai_ifim.display.style import BLUE, GRAY, LIGHT_BLUE, ORANGE, VERMILION, drawing
from monai_ifim.display.vocabulary import BY_COMPONENT, PER_UNIT
from monai_ifim.display.wording import answer, answer_kind, answer_values, method, output_names, trace_text, unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

KEPT, DROPPED, SHARE, GUIDE = BLUE, LIGHT_BLUE, VERMILION, ORANGE
MOST_BARS = 40  # of the spectrum
MOST_ANSWERS = 7
LONGEST_NAME = 13  # characters of the name of a class
CLEAR = 0.06  # of the longer side of a plane: distance from the point at which the lines that mark it end
LARGEST = 1024  # most pixels on a side of a plane

# inches
LEFT, RIGHT, GAP, TOP = 0.85, 0.15, 0.16, 1.02
CHARTS, BELOW_CHARTS, TITLE, BAR, BELOW_BAR = 1.35, 0.5, 0.36, 0.08, 0.36
TILE_2D, TILE_3D, TALLEST, LOWEST = 2.4, 1.42, 1.5, 0.36
BETWEEN, ANSWERS, BESIDE_ANSWERS = 1.5, 1.8, 0.75


def draw(
    d: Decomposition,
    index: int,
    channel: int,
    components: int,
    point: Sequence[int] | None,
    largest: int = LARGEST,
    class_names: Sequence[str] | None = None,
    orientation: Sequence[str] | None = None,
) -> Figure:
    """The figure of `Decomposition.plot`; largest: most pixels on a side of a plane."""
    view = Viewpoint.of(d, index, channel, point, largest, orientation)
    texts = [] if class_names is None else [str(name) for name in class_names]
    class_names = None if class_names is None else [legible(text) for text in texts]
    names = output_names(d, class_names)
    panels = panels_of(d, view, components)
    with drawing(names=texts):
        sheet = _Sheet.of(panels)
        figure = sheet.figure
        figure.text(
            0.12 / sheet.width,
            1 - 0.1 / sheet.height,
            _header(d, view, point is not None, class_names),
            va="top",
            linespacing=1.45,
        )
        split = sheet.width - ANSWERS - BESIDE_ANSWERS
        _draw_spectrum(sheet.axes("spectrum", LEFT, TOP, split - LEFT - BETWEEN, CHARTS), d, view.index)
        _draw_answers(sheet.axes("answers", split, TOP, ANSWERS, CHARTS), d, view.index, names)
        for place, panel in enumerate(panels):
            _draw_panel(sheet, place, panel, view)
    # Without pyplot a notebook knows no picture of a figure: this is where it looks for one.
    figure._repr_png_ = partial(png, figure)  # type: ignore[attr-defined]
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a PNG file with an opaque background, which is legible in dark notebooks too."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, facecolor=figure.get_facecolor(), transparent=False)
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class _Sheet:
    """A figure whose parts have fixed places, in inches from its left and upper edge, so that no layout engine runs.

    heights: of the planes of one panel, below each other. block: height of a panel with its title and colour bar. columns:
    panels side by side.
    """

    figure: Figure
    width: float
    height: float
    tile: float
    heights: tuple[float, ...]
    block: float
    columns: int

    @classmethod
    def of(cls, panels: Sequence[Panel]) -> _Sheet:
        """Sheet for the panels: four in a row, those of a volume all in one; the planes of a volume have one scale."""
        from matplotlib.figure import Figure

        planes = panels[0].planes
        tile, columns = (TILE_2D, 4) if len(planes) == 1 else (TILE_3D, len(panels))
        rows, widths = zip(*(plane.shape for plane in planes), strict=True)
        scale = tile / max(*widths, max(rows) / TALLEST)
        heights = tuple(max(LOWEST, size * scale) for size in rows)
        width = LEFT + columns * (tile + GAP) - GAP + RIGHT
        block = TITLE + sum(heights) + GAP * len(heights) + BAR + BELOW_BAR
        height = TOP + CHARTS + BELOW_CHARTS + math.ceil(len(panels) / columns) * block
        return cls(Figure(figsize=(width, height)), width, height, tile, heights, block, columns)

    def axes(self, label: str, left: float, top: float, width: float, height: float) -> Axes:
        """New axes at this place."""
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place, label=label)

    def place(self, panel: int) -> tuple[float, float]:
        """(left, top) of a panel's first plane."""
        row, column = divmod(panel, self.columns)
        return LEFT + column * (self.tile + GAP), TOP + CHARTS + BELOW_CHARTS + TITLE + row * self.block


def _header(d: Decomposition, view: Viewpoint, asked: bool, names: Sequence[str] | None) -> str:
    """Heading: image, answer, share of the sensitivity kept, method, and place of the planes."""
    batch, channels, *shape = d.image.shape
    place = f"{'pixel' if len(shape) == 2 else 'voxel'} {view.point}"
    peak = float(d.sensitivity[(view.index, view.channel, *view.point)])
    why = "" if asked else ", the most sensitive" if peak > 0 else ", the centre"
    coarse = f";  a pixel stands for {sizes((view.step, view.step))} voxels" if view.step > 1 else ""
    ended = "" if bool(d.converged[view.index]) else ";  NOT CONVERGED"
    saturated = f";  {SATURATED.upper()}" if d.saturation[view.index].saturated else ""
    said = f"{answer(d, view.index, names)}{saturated}"
    kept = int(d.rank[view.index])
    components = counted(kept, "component")
    lines = (
        f"image {view.index} of {batch}, channel {view.channel} of {channels}, {sizes(shape)}:  {said}",
        f"{components} {'holds' if kept == 1 else 'hold'} {percent(float(d.energy[view.index]))} of the sensitivity, "
        f"{trace_text(d, view.index)} {PER_UNIT}{ended};  error bound {number(float(d.error_bound[view.index]))}",
        f"{method(d)};  unit: {unit(d)}{coarse}",
        f"{'marked' if len(shape) == 2 else 'planes'} at {place}{why}:  sensitivity {number(peak)} {PER_UNIT}",
    )
    return "\n".join(lines)


def _draw_spectrum(axes: Axes, d: Decomposition, index: int) -> None:
    """Eigenvalues as bars, the kept ones darker, and their cumulative share of the trace as a line."""
    from matplotlib.ticker import MaxNLocator

    values = d.spectrum[index].detach().cpu()
    values = values[values > 0]
    shown, rank, trace = values[:MOST_BARS], int(d.rank[index]), float(d.trace[index])
    components = range(1, len(shown) + 1)
    colors = [KEPT if component <= rank else DROPPED for component in components]
    axes.bar(components, shown.tolist(), color=colors, width=0.7)
    beyond = f", first {len(shown)} of {len(values)}" if len(values) > len(shown) else ""
    axes.set_title(f"{BY_COMPONENT.label}: {rank} kept of {len(values)} computed{beyond}", loc="left")
    axes.set_xlabel("component", labelpad=1)
    axes.set_ylabel(f"sensitivity\n({PER_UNIT})", color=KEPT)
    axes.set_xlim(0.4, max(len(shown), 6) + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines["top"].set_visible(False)
    if len(shown) == 0:
        text = "no component computed" if trace > 0 else "F = 0: no small change\nmoves this answer"
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
        return
    if float(shown[0]) >= 100 * float(shown[-1]):
        axes.set_yscale("log")
        axes.set_ylim(float(shown[-1]) / 2, float(shown[0]) * 2)
    share = axes.twinx()
    share.set_label("share")
    share.plot(components, (100 * shown.cumsum(0) / trace).tolist(), color=SHARE, marker="o", markersize=3, linewidth=1)
    share.set_ylim(0, 105)
    share.set_ylabel("share of the total,\nadded up (%)", color=SHARE)
    share.spines["top"].set_visible(False)


def _draw_answers(axes: Axes, d: Decomposition, index: int, names: Sequence[str]) -> None:
    """The largest values of the network's answer as bars, in the order of the outputs."""
    kind, values = answer_kind(d), answer_values(d, index)
    chosen = sorted(values.argsort(descending=True, stable=True)[:MOST_ANSWERS].tolist())
    heights = [float(values[c]) for c in chosen]
    best = int(values.argmax())
    axes.barh(range(len(chosen)), heights, color=[KEPT if kind != "class" or c == best else DROPPED for c in chosen], height=0.7)
    axes.set_yticks(range(len(chosen)), [_fitting(names[c]) for c in chosen], fontsize=7)
    axes.set_ylim(max(len(chosen), 3) - 0.4, -0.6)
    axes.spines[["top", "right"]].set_visible(False)
    mean = "mean over the voxels: " if d.probabilities.ndim > 2 else ""
    title = "predicted mean" if d.record["head"] == "gaussian" else "output" if kind == "output" else "probability"
    beyond = f", {len(chosen)} of {len(values)}" if len(values) > len(chosen) else ""
    axes.set_title(f"{mean}{title}{beyond}", loc="left")
    if kind != "output":
        axes.set_xlim(0, 1)
    for row, height in enumerate(heights):
        text = number(height) if kind == "output" else probability(height)
        axes.annotate(text, (max(height, 0.0), row), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)


def _fitting(name: str) -> str:
    """A name that is short enough to stand beside its bar."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _draw_panel(sheet: _Sheet, place: int, panel: Panel, view: Viewpoint) -> None:
    """A column of planes with one colour bar below."""
    left, top = sheet.place(place)
    drawn: list[AxesImage] = []
    for axis, (plane, height) in enumerate(zip(panel.planes, sheet.heights, strict=True)):
        name = panel.name if len(panel.planes) == 1 else f"{panel.name}, axis {axis}"
        axes = sheet.axes(name, left, top, sheet.tile, height)
        drawn.append(_draw_plane(axes, plane, panel.scale, view.step))
        layout = view.layouts[axis]
        if panel.name == "image":
            _draw_guides(axes, *layout.place(view.point, *(size * view.step for size in plane.shape)))
        if place % sheet.columns == 0:
            axes.set_ylabel(layout.described(view.point), fontsize=7, rotation=0, ha="right", va="center")
        if axis == 0:
            axes.set_title(panel.title)
        top += height + GAP
    _draw_scale(sheet.axes(f"{panel.name}, scale", left, top - GAP / 2, sheet.tile, BAR), drawn[0], panel)


def _draw_guides(axes: Axes, row: int, column: int) -> None:
    """Lines that point at a voxel and end before it, so that what lies there is seen."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    away = max(1.0, CLEAR * max(right - left, bottom - top))
    style: dict[str, Any] = {"color": GUIDE, "linewidth": 0.5, "scalex": False, "scaley": False}
    axes.plot([left, column - away, math.nan, column + away, right], [row] * 5, **style)
    axes.plot([column] * 5, [top, row - away, math.nan, row + away, bottom], **style)


def _draw_plane(axes: Axes, plane: Tensor, scale: ColorScale, step: int) -> AxesImage:
    rows, columns = (size * step for size in plane.shape)
    drawn = axes.imshow(
        plane.numpy(),
        cmap=scale.colors,
        vmin=scale.low,
        vmax=scale.high,
        extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
        interpolation="antialiased" if scale.colors == GRAY else "nearest",  # which does not average signs away
    )
    axes.set_xticks([])
    axes.set_yticks([])
    return drawn


def _draw_scale(axes: Axes, drawn: AxesImage, panel: Panel) -> None:
    """The colour bar of a panel; an end is pointed where values lie beyond it."""
    scale = panel.scale
    lowest, highest = (min(float(p.min()) for p in panel.planes), max(float(p.max()) for p in panel.planes))
    ends = {(True, True): "both", (True, False): "min", (False, True): "max"}
    extend = ends.get((lowest < scale.low, highest > scale.high), "neither")
    marks = (scale.low, 0.0, scale.high) if scale.is_signed else (scale.low, scale.high)
    bar = drawn.axes.figure.colorbar(drawn, cax=axes, orientation="horizontal", extend=extend, ticks=marks)
    axes.set_xticks(marks, [number(mark) for mark in marks])
    axes.get_xticklabels()[0].set_horizontalalignment("left")  # the ends stay inside, clear of the neighbour's
    axes.get_xticklabels()[-1].set_horizontalalignment("right")
    bar.set_label(scale.unit, fontsize=7, labelpad=1)
    bar.ax.minorticks_off()
    axes.tick_params(length=2, pad=1.5, labelsize=7)
