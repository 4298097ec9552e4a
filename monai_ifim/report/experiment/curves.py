"""Figure of one cell: how the answer and its correctness move with the norm of each family of noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_ifim.evaluation.measuring.end_points import CLAIM, MEASURES, drawn_measures
from monai_ifim.evaluation.measuring.families import families_of
from monai_ifim.evaluation.records import CellRecord, Curve
from monai_ifim.report.experiment.lines import draw_band, legend_handle, norm_axis, note_images
from monai_ifim.report.experiment.wording import family
from monai_ifim.report.pages.style import log_axis, mark_empty, new_figure

__all__ = ["columns_of_controls", "curve_figure", "measures_with_values"]

ASKED = (CLAIM.first, CLAIM.second)
LOGARITHMIC = ("divergence",)
LEGEND_HEIGHT = 0.4  # of a panel


def columns_of_controls() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(title, families) of each column of the figure."""
    return (
        ("controls: noise in other subspaces", tuple(name for name in families_of("noise") if name not in ASKED)),
        ("controls: noise in highly ranked pixels", families_of("pixels")),
    )


def measures_with_values(cell: CellRecord) -> list[str]:
    """The drawn measures that have a value anywhere."""
    families = families_of("noise", "pixels")
    return [name for name in drawn_measures() if any(np.isfinite(curve.mean).any() for curve in _drawn(cell, families, (name,)))]


def curve_figure(cell: CellRecord) -> Figure:
    """One row per measure; the two families of the question in both columns, with the controls of one kind in each."""
    columns = [found for found in columns_of_controls() if _drawn(cell, found[1], drawn_measures())] or [("", ())]
    measures = measures_with_values(cell)
    figure = new_figure(4.6 * len(columns) + 0.6, 2.3 * len(measures) + 1.3)
    heights = [LEGEND_HEIGHT, *[1.0] * len(measures)]
    grid = figure.subplots(len(heights), len(columns), sharey="row", squeeze=False, height_ratios=heights)
    for column, (title, names) in enumerate(columns):
        families = (*names, *reversed(ASKED))  # the question's own lines lie on top
        for row, name in enumerate(measures, start=1):
            _panel(grid[row, column], cell, families, name)
        _legend(grid[0, column], title, [name for name in (*ASKED, *names) if _drawn(cell, (name,), drawn_measures())])
    for row, name in enumerate(measures, start=1):
        grid[row, 0].set_ylabel(MEASURES[name].axis)
    figure.supxlabel("norm of the perturbation over that of the image, |d| / |x|", fontsize=8.5)
    figure.align_ylabels(grid[1:, 0])
    return figure


def _legend(axes: Axes, title: str, families: Sequence[str]) -> None:
    """Names of a column's lines, in a panel of their own above them."""
    axes.set_axis_off()
    legend = axes.legend(
        handles=[legend_handle(name, family(name)) for name in families],
        title=title,
        loc="upper left",
        ncols=2,
        handlelength=3.2,
        columnspacing=1.2,
        alignment="left",
        borderaxespad=0.0,
    )
    legend.get_title().set_fontweight("bold")


def _drawn(cell: CellRecord, families: Sequence[str], measures: Sequence[str]) -> list[Curve]:
    curves = [cell.curve(family, measure) for measure in measures for family in families]
    return [curve for curve in curves if curve is not None]


def _panel(axes: Axes, cell: CellRecord, families: Sequence[str], measure: str) -> None:
    curves = [curve for curve in _drawn(cell, families, (measure,)) if np.isfinite(curve.mean).any()]
    if not curves:
        mark_empty(axes)
        return
    logarithmic = measure in LOGARITHMIC and any((curve.mean > 0).any() for curve in curves)
    if logarithmic:
        log_axis(axes)
    for curve in curves:
        draw_band(axes, curve, strong=curve.family in ASKED)
    norm_axis(axes, curves[-1].relative_norm, zero=not logarithmic)
    axes.grid(True, axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    note_images(axes, curves)
