"""Stacks: slices that the header says belong together (PS3.3, C.7.6.16.2.2: Stack ID), where several lie along one line."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from monai_ifim.io.dicom.grouping import NEAR, NEAR_SHARE, heights_of, places_of
from monai_ifim.io.dicom.planes import Plane


def stacks_of(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Slices of one orientation by their Stack ID, if all state one; all as one where they lie evenly, or a stack has one place.

    Some programs give each slice, or each half of a volume, a Stack ID of its own.
    """
    stacks: dict[str, list[Plane]] = defaultdict(list)
    for plane in planes:
        stacks[str(plane.stated("StackID", "FrameContentSequence", "StackID") or "").strip()].append(plane)
    if len(stacks) < 2 or "" in stacks or _is_even(planes):
        return [list(planes)]
    parts = list(stacks.values())
    return parts if all(places_of(heights_of(part)).any() for part in parts) else [list(planes)]


def _is_even(planes: Sequence[Plane]) -> bool:
    """True if the places of the slices are as far apart from each to the next."""
    heights = heights_of(planes)
    places = places_of(heights)
    if not places.any():
        return True
    found = np.bincount(places, heights) / np.bincount(places)
    even = np.linspace(found[0], found[-1], len(found))
    return float(np.abs(found - even).max()) <= min(NEAR, NEAR_SHARE * float(even[1] - even[0]))
