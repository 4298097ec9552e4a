"""The place of a scene's colour bars: at an edge of the views, away from the most sensitive point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from monai_ifim.io.slicer.views import Point, SliceView

NEAR = 0.25  # of a view: a point closer than this to an edge may lie under a colour bar there, with its title


@dataclass(frozen=True)
class Legend:
    """orientation: 3D Slicer's name; position: of the bar, as shares of what the bar leaves free of the view; size: shares of
    the view."""

    orientation: str
    position: tuple[float, float]
    size: tuple[float, float]


PLACES: Mapping[str, Legend] = MappingProxyType(
    {
        "right": Legend("Vertical", (0.98, 0.5), (0.12, 0.55)),
        "left": Legend("Vertical", (0.02, 0.5), (0.12, 0.55)),
        "bottom": Legend("Horizontal", (0.5, 0.02), (0.55, 0.12)),
        "top": Legend("Horizontal", (0.5, 0.98), (0.55, 0.12)),
    }
)  # the first is the usual one


def legend_at(views: Sequence[SliceView], point: Point | None) -> Legend:
    """The first of PLACES whose edge is NEAR the point in none of the views; where there is none, that of the farthest edge.

    point: RAS mm; None has no such point.
    """
    if point is None:
        return PLACES["right"]
    distances = {name: min(_distance(view, point, name) for view in views) for name in PLACES}
    free = [name for name, distance in distances.items() if distance >= NEAR]
    return PLACES[free[0] if free else max(distances, key=lambda name: distances[name])]


def _distance(view: SliceView, point: Point, edge: str) -> float:
    """How far a point lies from an edge of a view, as a share of the view."""
    right, up = ((np.asarray(point) - view.matrix[:3, 3]) @ view.matrix[:3, :2]) / np.asarray(view.field) + 0.5
    return float({"left": right, "right": 1 - right, "bottom": up, "top": 1 - up}[edge])
