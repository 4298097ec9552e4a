"""The figure of the methods that `python -m benchmarks.compare --only rivals` compares: share, seconds and memory of each.

rivals.png: a line a method, the largest share first. Left, the nats that a step along its direction costs over the most that a
step of this length can cost: of a trained network (a dot at the median, a bar from the smallest to the largest) and of random
weights (a ring). Middle and right, seconds and peak memory as multiples of exact's, on logarithmic axes.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from docs.figures.measurements import Rival, rivals

OURS, OTHERS = "#0072b2", "#555555"


def draw_figures(demo: Path, output: Path) -> None:
    """Write it; the demo is not drawn."""
    rivals_figure(rivals()).savefig(output / "rivals.png", dpi=90, bbox_inches="tight")


def rivals_figure(found: list[Rival]) -> Figure:
    """Three panels, see the module."""
    figure = Figure(figsize=(11, 0.36 * len(found) + 1.3), layout="constrained")
    share, seconds, memory = figure.subplots(1, 3, sharey=True, width_ratios=(1.5, 1, 1))
    for place, rival in enumerate(found):
        colour = OURS if rival.name == "exact" else OTHERS
        median, low, high = rival.trained
        share.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="butt")
        share.plot(median, place, "o", color=colour, markersize=7)
        share.plot(rival.untrained, place, "o", color=colour, markersize=9, markerfacecolor="none")
        seconds.plot(rival.seconds, place, "D", color=colour, markersize=6)
        if rival.memory is not None:
            memory.plot(rival.memory, place, "s", color=colour, markersize=6)
    share.set(yticks=range(len(found)), xlim=(-0.03, 1.05), xlabel="share of the largest eigenvalue")
    share.set_yticklabels([rival.name for rival in found])
    share.invert_yaxis()
    _multiples(seconds, "seconds / exact's")
    _multiples(memory, "peak memory / exact's")
    for axes in (share, seconds, memory):
        axes.grid(visible=True, axis="both", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    return figure


def _multiples(axes: Axes, label: str) -> None:
    axes.set(xscale="log", xlabel=label)
    axes.axvline(1.0, color=OURS, linewidth=1, linestyle="dashed")
