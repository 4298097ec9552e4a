"""Groups of points that lie near to each other: single linkage, which asks neither for an order nor for a grid of digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int_]


def linked(points: Points, reach: float, norm: float = 2) -> Labels:
    """The group of each point [n]: two points are in one group if steps of at most `reach` from point to point lead from one to
    the other. So the groups depend on the points alone, and not on their order.

    points: [n, d]; norm: 2 for the Euclidean distance, infinity for the largest difference of a coordinate.
    """
    distinct, inverse = np.unique(points, axis=0, return_inverse=True)
    if len(distinct) == 1:
        return np.zeros(len(points), dtype=np.int_)
    from scipy.spatial import cKDTree  # loads for a moment, and few series need it

    labels = np.full(len(distinct), -1)
    for first in range(len(distinct)):
        if labels[first] >= 0:
            continue
        labels[first] = first
        frontier = np.array([first])
        while len(frontier):
            left = np.flatnonzero(labels < 0)
            if not len(left):
                break
            away, _ = cKDTree(distinct[frontier]).query(distinct[left], p=norm)
            frontier = left[away <= reach]
            labels[frontier] = first
    return labels[inverse.reshape(-1)]


def linked_values(values: Points, reach: float) -> Labels:
    """`linked` for numbers [n]; the groups are counted from 0 in ascending order."""
    order = np.argsort(values, kind="stable")
    labels = np.empty(len(values), dtype=np.int_)
    labels[order] = np.concatenate([[0], np.cumsum(np.diff(values[order]) > reach)])
    return labels
