"""Figure of a cohort: histograms of their sensitivity, components, confidence and time, by predicted class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from monai_ifim.display import numbers
from monai_ifim.display.fonts import undrawn_sentence
from monai_ifim.display.style import BLUE, VERMILION
from monai_ifim.report.cohort.records import ALL_CASES, Array, CaseGroup, Cohort, CohortQuantity
from monai_ifim.report.pages.blocks import Picture
from monai_ifim.report.pages.style import figure_name, new_figure, page_style, small_png

__all__ = ["distribution_figure", "distribution_picture"]

BINS = 25  # odd: a single value is in the middle of a bar
ALL_COLOR, CLASS_COLOR, MARK_COLOR = "#777777", BLUE, VERMILION
LONGEST_LABEL = 22
MOST_TICKS = 3
ZERO_GAP = 2.5  # bins between the bar of zeros and the smallest positive value


@dataclass(frozen=True, eq=False)
class QuantityAxis:
    """Horizontal axis of one quantity. edges: of the bins, as places on the axis; ticks: (place, text); place: from values to
    places; zero: place of the bar of zeros on a logarithmic axis, None if no value is zero."""

    edges: Array
    ticks: tuple[tuple[float, str], ...]
    place: Callable[[Array], Array]
    zero: float | None = None


def distribution_picture(cohort: Cohort) -> Picture:
    """The figure with caption and alternative text."""
    classes = [group.label for group in cohort.groups()]
    with page_style(classes):
        content, size = small_png(distribution_figure(cohort))
    undrawn = undrawn_sentence(classes)
    rows = (
        f"a row for all cases and one for each of {len(classes) - 1} predicted classes" if classes[1:] else "one row, all cases"
    )
    return Picture(
        "figures/distributions.png",
        content,
        size,
        alt=f"Histograms, {rows}. Over all cases: {_ranges(cohort)}. The tables below hold the quantiles of each.",
        caption="Distribution of the cases. Left of each panel: the number of cases in its highest bar. Line: median; "
        "triangle: a case listed below as an outlier in this quantity; hatched bar: cases at zero, for which a logarithmic "
        "axis has no place. The time excludes cases kept from an earlier run." + (f" {undrawn}" if undrawn else ""),
    )


def _ranges(cohort: Cohort) -> str:
    """Median and range of each quantity of all cases: total sensitivity (nats per unit²): median 0.500, 0.120 to 3.10."""
    everything, texts = cohort.groups()[0], []
    for quantity in cohort.quantities():
        values = everything.values(quantity)
        form = quantity.text
        texts.append(f"{quantity.head}: median {form(float(np.median(values)))}, {numbers.range_text(values.tolist(), form)}")
    return "; ".join(texts)


def distribution_figure(cohort: Cohort) -> Figure:
    """One row of panels per group, one column per quantity."""
    groups, quantities = cohort.groups(), cohort.quantities()
    height = 0.72 * len(groups) if len(groups) > 1 else 1.7
    figure = new_figure(1.6 + 2.0 * len(quantities), height + 0.9)
    grid = figure.subplots(len(groups), len(quantities), squeeze=False, sharex="col")
    for column, quantity in enumerate(quantities):
        axis = _axis(quantity, groups[0].values(quantity))
        marked = cohort.outliers[(cohort.outliers["quantity"] == quantity.column) & (cohort.outliers["kind"] != "vanishing")]
        for row, group in enumerate(groups):
            inside = marked["value"][marked["case"].isin(set(group.cases["case"]))].to_numpy(np.float64)
            _panel(grid[row, column], group, quantity, axis, inside)
        grid[0, column].set_title(f"{quantity.term.label}\n({quantity.unit})", fontsize=8.5)
        grid[-1, column].set_xticks([place for place, _ in axis.ticks], [text for _, text in axis.ticks])
    for row, group in enumerate(groups):
        label = f"{figure_name(group.label, LONGEST_LABEL)}\n{numbers.count(len(group.cases))}"
        grid[row, 0].text(-0.22, 0.4, label, transform=grid[row, 0].transAxes, ha="right", va="center")
    return figure


def _panel(axes: Axes, group: CaseGroup, quantity: CohortQuantity, axis: QuantityAxis, outliers: Array) -> None:
    values = group.values(quantity)
    color = ALL_COLOR if group.label == ALL_CASES else CLASS_COLOR
    axes.spines["left"].set_visible(False)
    zero = axis.zero is not None
    positive = values[values > 0] if zero else values
    counts, _ = np.histogram(axis.place(positive), axis.edges)
    width = float(axis.edges[1] - axis.edges[0])
    axes.stairs(counts, axis.edges, fill=True, color=color)  # one artist: as many bars take a second to draw
    peak = int(counts.max(initial=0))
    if axis.zero is not None:
        zeros = len(values) - len(positive)
        axes.bar([axis.zero], [zeros], 1.6 * width, color="white", edgecolor=color, hatch="//////", linewidth=0.8)
        peak = max(peak, zeros)
    top = 1.3 * max(peak, 1)
    if len(values):
        middle = float(axis.place(np.array([np.median(values)]))[0])
        axes.plot([middle, middle], [0, 1.08 * max(peak, 1)], color="black", linewidth=1.1)
    if len(outliers):  # an unclipped line without points would lie at the figure's corner and spoil the layout
        axes.plot(axis.place(outliers), np.full(len(outliers), 0.92 * top), "v", color=MARK_COLOR, markersize=4, clip_on=False)
    axes.set_ylim(0, top)
    left = float(axis.edges[0]) if axis.zero is None else axis.zero - width
    axes.set_xlim(left - 0.5 * width, float(axis.edges[-1]) + 0.5 * width)
    axes.set_yticks([peak] if peak else [], [numbers.count(peak)] if peak else [], fontsize=6.5)
    axes.tick_params(axis="y", length=0, pad=1)


def _axis(quantity: CohortQuantity, values: Array) -> QuantityAxis:
    if quantity.logarithmic:
        return _log_axis(values)
    if quantity.whole:
        return _whole_axis(values)
    low = min(0.9, np.floor(10 * float(values.min())) / 10) if len(values) else 0.0
    places = np.linspace(low, 1.0, 3)
    ticks = tuple((float(place), numbers.as_given(float(place))) for place in places)
    return QuantityAxis(np.linspace(low, 1.0, BINS + 1), ticks, lambda values: values)


def _whole_axis(values: Array) -> QuantityAxis:
    low, high = (int(values.min()), int(values.max())) if len(values) else (0, 1)
    step = -(-(high - low + 1) // BINS)
    edges = np.arange(low - 0.5, high + step + 0.5, step)
    edges = np.array([edges[0] - step, *edges, edges[-1] + step])  # an empty bin on either side keeps the bars narrow
    stride = max(1, -(-(high - low) // MOST_TICKS))
    ticks = tuple((float(whole), numbers.count(whole)) for whole in range(low, high + 1, stride))
    return QuantityAxis(edges, ticks, lambda values: values)


def _log_axis(values: Array) -> QuantityAxis:
    """A logarithmic axis: places are logarithms to base ten."""
    positive = values[values > 0]
    low, high = (float(np.log10(end)) for end in (positive.min(), positive.max())) if len(positive) else (-0.5, 0.5)
    if high - low < 1e-3:
        low, high = low - 0.5, high + 0.5
    ticks = _log_ticks(low, high) if len(positive) else []
    edges = np.linspace(low, high, BINS + 1)
    edges[-1] += 1e-9 * (high - low)  # log10 may round the largest value up or down
    edges[0] -= 1e-9 * (high - low)
    if len(positive) == len(values):
        return QuantityAxis(edges, tuple(ticks), _log_place(None))
    zero = low - ZERO_GAP * (high - low) / BINS
    ticks = [(place, text) for place, text in ticks if place - zero > 0.2 * (high - low)]
    return QuantityAxis(edges, ((zero, "0"), *ticks), _log_place(zero), zero)


def _log_place(zero: float | None) -> Callable[[Array], Array]:
    def place(values: Array) -> Array:
        positive = values > 0
        return np.where(positive, np.log10(np.where(positive, values, 1.0)), np.nan if zero is None else zero)

    return place


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Ticks at powers of ten; below two of these also at 2 and 5 times them; below two of those at the ends."""
    first, last = int(np.ceil(low)), int(np.floor(high))
    stride = max(1, -(-(last - first) // MOST_TICKS))
    places: Sequence[float] = [float(power) for power in range(first, last + 1, stride)]
    if len(places) < 2:
        fine = [power + np.log10(factor) for power in range(first - 1, last + 2) for factor in (1, 2, 5)]
        places = [place for place in fine if low <= place <= high]
    if len(places) < 2:
        places = [low, high]
    return [(place, numbers.number(float(10.0**place), 3 if places == [low, high] else 1)) for place in places]
