"""Figure of one task: measured and predicted divergence of steps along the most sensitive direction."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from monai_ifim.evaluation.measuring.families import families_of
from monai_ifim.evaluation.records import CellRecord
from monai_ifim.report.experiment.lines import draw_band, legend_handle, norm_axis, note_images
from monai_ifim.report.experiment.wording import family
from monai_ifim.report.pages.style import LONGEST_TITLE, figure_name, label_rows, log_axis, mark_empty, panels

__all__ = ["has_locality", "locality_figure"]


def has_locality(cells: Sequence[CellRecord]) -> bool:
    """True if any cell has curves of steps along u_1."""
    return any(cell.curve(name, "divergence") for cell in cells for name in families_of("step"))


def locality_figure(cells: Sequence[CellRecord]) -> Figure:
    """A panel per architecture: measured and predicted divergence of steps along u_1, and where the locality radius lies."""
    figure, grid = panels(len(cells))
    predicted = False
    for axes, cell in zip(grid, cells, strict=False):
        drawn = [
            curve
            for name in families_of("step")
            if (curve := cell.curve(name, "divergence")) is not None and (curve.mean > 0).any()
        ]
        axes.set_title(figure_name(cell.architecture, LONGEST_TITLE), loc="left", fontweight="bold")
        if not drawn:
            mark_empty(axes)
            continue
        log_axis(axes)
        for curve in drawn:
            draw_band(axes, curve)
        foretold = cell.curve(drawn[0].family, "predicted_divergence")
        if foretold is not None:
            predicted = True
            axes.plot(foretold.relative_norm, foretold.mean, color="#000000", linestyle=(0, (1, 1.5)), linewidth=1.4, zorder=4)
        norm_axis(axes, drawn[0].relative_norm, zero=False)
        note_images(axes, drawn)
        _radius(axes, cell)
    figure.supxlabel("length of the step over the norm of the image", fontsize=8.5)
    label_rows(grid, "divergence (nats)")
    handles = [legend_handle(name, f"measured, {family(name)}") for name in families_of("step")]
    if predicted:
        handles.append(Line2D([], [], color="#000000", linestyle=(0, (1, 1.5)), label="predicted"))
    handles.append(Line2D([], [], color="#777777", linewidth=1.0, label="component 1 holds up to, mean and 95 % interval"))
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=3.4)
    return figure


def _radius(axes: Axes, cell: CellRecord) -> None:
    radius = cell.images_scalars.get("relative_locality_radius")
    if radius is None or radius.value is None:
        return
    left, right = axes.get_xlim()
    if radius.low is not None and radius.high is not None:
        axes.axvspan(radius.low, radius.high, color="#999999", alpha=0.3, linewidth=0, zorder=0)
    axes.axvline(radius.value, color="#777777", linewidth=1.0, zorder=1)
    axes.set_xlim(min(left, radius.value / 1.2), max(right, radius.value * 1.2))
