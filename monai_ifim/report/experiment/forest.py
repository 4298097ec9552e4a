"""Forest plots: differences with their intervals, one row each, and the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_ifim.display import numbers
from monai_ifim.evaluation.measuring.families import FAMILIES
from monai_ifim.evaluation.records import CellRecord, Comparison, Estimate, ExperimentRecord
from monai_ifim.report.experiment.lines import VERDICTS
from monai_ifim.report.experiment.wording import VERDICT_TEXT, family, verdict
from monai_ifim.report.pages.style import MOST_COLUMNS, figure_name, new_figure

__all__ = ["control_figure", "controls", "forest_figure"]

LONGEST_NAME = 44  # letters beside a row


@dataclass(frozen=True)
class Item:
    """A row of a forest plot; comparison: None if there is no result, for the given `reason`."""

    label: str
    comparison: Comparison | None
    reason: str = "n/a"


def forest_figure(results: ExperimentRecord) -> Figure:
    """All cells, grouped by task, failed ones included."""
    groups: dict[str, list[Item]] = {task: [] for task in results.task_names()}
    for cell in results.cells:
        groups[cell.task].append(Item(cell.architecture, results.asked(cell)))
    for failure in results.failed:
        groups[failure.task].append(Item(failure.architecture, None, VERDICT_TEXT["failed"]))
    height = 0.26 * (2 * len(groups) + sum(map(len, groups.values()))) + 1.0
    figure = new_figure(8.6, height)
    axes = figure.subplots()
    place, labels = 0.0, []
    across = axes.get_yaxis_transform()
    for task, items in groups.items():
        name = figure_name(results.title(task), LONGEST_NAME)
        axes.text(-0.005, place, name, transform=across, ha="right", va="center", fontweight="bold")
        for item in items:
            place += 1
            labels.append((place, item.label))
            _row(axes, place, item, written=True)
        place += 1.7
    _finish(axes, labels, place - 1.0)
    axes.set_xlabel("area difference of the probability change (dots), 95 % interval over images (bars)")
    return figure


def controls(cells: Sequence[CellRecord], first: str, measure: str) -> list[str]:
    """Families that `first` is compared with in any of the cells, the order being that of all families."""
    found = {c.second for cell in cells for c in cell.comparisons if (c.first, c.measure, c.kind) == (first, measure, "area")}
    return [name for name in FAMILIES if name in found] + sorted(found - set(FAMILIES))


def control_figure(cells: Sequence[CellRecord], first: str, measure: str) -> Figure:
    """A panel per architecture, a row per family that `first` is compared with."""
    names = controls(cells, first, measure)
    columns = min(MOST_COLUMNS, len(cells))
    lines = -(-len(cells) // columns)
    figure = new_figure(2.3 + 2.6 * columns, (0.27 * len(names) + 0.75) * lines + 0.5)
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for place, axes in enumerate(grid.flat):
        if place >= len(cells):
            axes.set_axis_off()
            continue
        for row, name in enumerate(names):
            _row(axes, row, Item(family(name), cells[place].comparison(first, name, measure)), written=False)
        _finish(axes, [(row, family(name)) for row, name in enumerate(names)], len(names) - 0.4)
        axes.set_title(figure_name(cells[place].architecture, LONGEST_NAME), loc="left", fontweight="bold")
    figure.supxlabel("area difference: leading eigenspace minus the family named, with 95 % interval", fontsize=8.5)
    handles = [
        Line2D([], [], linestyle="none", marker=m.marker, color=m.color, markerfacecolor=m.color if m.filled else "white")
        for m in VERDICTS.values()
    ]
    figure.legend(handles, [VERDICT_TEXT[name] for name in VERDICTS], loc="outside upper right", ncols=3)
    return figure


def _row(axes: Axes, place: float, item: Item, written: bool) -> None:
    """Dot, bar and, where `written`, the verdict at the right end; a row without a result shows the reason."""
    said = verdict(item.comparison)
    across = axes.get_yaxis_transform()
    difference = item.comparison.estimate if item.comparison else Estimate(None)
    if item.comparison is None or difference.value is None:
        inside: dict[str, Any] = {} if written else {"ha": "right", "backgroundcolor": "white"}
        axes.text(1.01 if written else 0.98, place, item.reason, transform=across, va="center", fontsize=8, **inside)
        return
    mark = VERDICTS[said]
    if difference.low is not None and difference.high is not None:
        axes.plot([difference.low, difference.high], [place, place], color=mark.color, linewidth=1.6, solid_capstyle="butt")
    style: dict[str, Any] = {"color": mark.color, "markerfacecolor": mark.color if mark.filled else "white"}
    axes.plot([difference.value], [place], linestyle="none", marker=mark.marker, markersize=6.5, **style)
    if written:
        text = f"{VERDICT_TEXT[said]}, {numbers.counted(item.comparison.images, 'image')}"
        axes.text(1.01, place, text, transform=across, va="center", fontsize=8, color=mark.color)


def _finish(axes: Axes, labels: Sequence[tuple[float, str]], end: float) -> None:
    axes.axvline(0.0, color="#222222", linewidth=1.0, zorder=0.9)
    axes.set_yticks([place for place, _ in labels], [figure_name(label, LONGEST_NAME) for _, label in labels])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(end, -0.7)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x", color="#E4E4E4", linewidth=0.6)
    axes.set_axisbelow(True)
