"""Figure of one task: the effect of removing parts of the image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from monai_ifim.evaluation.measuring.end_points import MEASURES
from monai_ifim.evaluation.measuring.families import families_of
from monai_ifim.evaluation.records import CellRecord
from monai_ifim.report.experiment.lines import draw_band, legend_handle, norm_axis
from monai_ifim.report.experiment.wording import family
from monai_ifim.report.pages.style import LONGEST_TITLE, figure_name, label_rows, mark_empty, panels

__all__ = ["has_removal", "removal_figure"]


def has_removal(cells: Sequence[CellRecord]) -> bool:
    """True if any cell has curves of attenuation."""
    return any(cell.curve(name, "absolute_change") for cell in cells for name in families_of("attenuation"))


def removal_figure(cells: Sequence[CellRecord]) -> Figure:
    """A panel per architecture: probability change over the norm taken away from x_high, and as much from x_low."""
    figure, grid = panels(len(cells))
    for axes, cell in zip(grid, cells, strict=False):
        curves = [curve for name in families_of("attenuation") if (curve := cell.curve(name, "absolute_change")) is not None]
        drawn = [curve for curve in curves if np.isfinite(curve.mean).any()]
        for curve in drawn:
            draw_band(axes, curve)
        if not drawn:
            mark_empty(axes)
            continue
        norm_axis(axes, drawn[0].relative_norm, zero=True)
        for norm, images, mean in zip(drawn[0].relative_norm, drawn[0].images, drawn[0].mean, strict=True):
            if np.isfinite(images) and np.isfinite(mean):
                axes.text(norm, 1.0, f"{int(images)}", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=7)
        axes.set_title(f"{figure_name(cell.architecture, LONGEST_TITLE)}\nnumber of images:", loc="left", fontsize=8, pad=11)
    figure.supxlabel("norm taken away over that of the image", fontsize=8.5)
    label_rows(grid, MEASURES["absolute_change"].axis)
    handles = [legend_handle(name, family(name)) for name in families_of("attenuation")]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=3.4)
    return figure
