"""The volumes of a series that has several slices at every place: times, echoes, b-values, told apart by their headers.

An attribute tells volumes apart if it takes the same values at every place. Attributes are tried in the order of `DIMENSIONS`;
one that leaves several slices at a place is combined with the next that divides them. What differs from slice to slice too
(times, numbers) tells them apart by its order at each place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from monai_ifim.io.dicom.dimensions import DIMENSIONS, NUMBER, TIMES, TRIGGER, Dimension, index_dimensions
from monai_ifim.io.dicom.grouping import heights_of, places_of
from monai_ifim.io.dicom.linkage import Labels
from monai_ifim.io.dicom.planes import Plane
from monai_ifim.io.dicom.volume import Array

MOST_COUNTS = 6  # volumes whose sizes a message lists
CURE = "A slice is missing or one too many: copy the series again, or put the slices of each volume into a folder of their own"

Keys = list[tuple[Hashable, ...]]


@dataclass(frozen=True)
class Separation:
    """Slices by volume, in the order of the series. differ: names of the attributes that tell the volumes apart.

    complaint: why slices that lie several at a place cannot be told apart, and the cure; the slices are then one part.
    """

    volumes: tuple[tuple[Plane, ...], ...]
    differ: tuple[str, ...] = ()
    complaint: str = ""


def separated(planes: Sequence[Plane]) -> Separation:
    """The volumes among slices of one orientation and spacing, each sorted by place."""
    heights = heights_of(planes)
    order = np.lexsort((np.array([str(plane.path) for plane in planes]), heights))
    planes, heights = [planes[k] for k in order], heights[order]
    places = places_of(heights)
    counts = np.bincount(places)
    if counts.max() == 1:
        return Separation((tuple(planes),))
    if counts.min() != counts.max():
        return Separation((tuple(planes),), complaint=_unequal(planes, places))
    keys, used = _by_values(planes, places)
    if not _told_apart(keys, places):
        ranked = _by_order(planes, places, keys)
        if ranked is None:
            return Separation((tuple(planes),), complaint=_alike(places))
        keys, used = [(*key, rank) for key, rank in zip(keys, ranked[0], strict=True)], [*used, ranked[1]]
    return Separation(_sorted(planes, keys, used), tuple(dimension.words for dimension in used))


def _by_values(planes: Sequence[Plane], places: Labels) -> tuple[Keys, list[Dimension]]:
    """For each slice the values of the attributes that divide the slices at every place alike, and those attributes."""
    keys: Keys = [()] * len(planes)
    used: list[Dimension] = []
    for dimension in (*DIMENSIONS, *index_dimensions(planes)):
        if _told_apart(keys, places):
            break
        finer = [(*key, value) for key, value in zip(keys, dimension.values(planes), strict=True)]
        if len(set(finer)) > len(set(keys)) and _same_everywhere(finer, places):
            keys, used = finer, [*used, dimension]
    return keys, used


def _told_apart(keys: Keys, places: Labels) -> bool:
    """True if no two slices of one place have one key."""
    return len(set(zip(places.tolist(), keys, strict=True))) == len(keys)


def _same_everywhere(keys: Keys, places: Labels) -> bool:
    """True if each key occurs at every place, and equally often."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    counts = np.zeros((int(places.max()) + 1, len(numbers)), dtype=np.int_)
    np.add.at(counts, (places, np.array([numbers[key] for key in keys])), 1)
    return bool((counts == counts[0]).all())


def _by_order(planes: Sequence[Plane], places: Labels, keys: Keys) -> tuple[list[int], Dimension] | None:
    """The rank of each slice among those of its place and key, and the attribute that gives it; None if there is none."""
    for dimension in (TRIGGER, *TIMES, NUMBER):
        stated = [dimension.of(plane) for plane in planes]
        if len({len(value) for value in stated}) == 1 and stated[0]:
            order = {value: rank for rank, value in enumerate(sorted(set(stated)))}
            ranks = _ranks(np.array([order[value] for value in stated], dtype=np.float64), places, keys, dimension)
            if ranks is not None:
                return ranks, dimension
    return None


def _ranks(values: Array, places: Labels, keys: Keys, dimension: Dimension) -> list[int] | None:
    """Ranks of values among those of one place and key; None if they say nothing of volumes."""
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        members[key].append(index)
    ranks = np.zeros(len(keys), dtype=np.int_)
    for several in members.values():
        chosen = np.array(several)
        order = chosen[np.lexsort((values[chosen], places[chosen]))]
        table = values[order].reshape(int(places.max()) + 1, -1)  # as many at every place
        if not (np.diff(table, axis=1) > 0).all() or not _says_volumes(table, dimension):
            return None
        ranks[order] = np.tile(np.arange(table.shape[1]), len(table))
    return ranks.tolist()


def _says_volumes(table: Array, dimension: Dimension) -> bool:
    """True if values [place, rank], ascending at each place, run volume by volume, or place by place.

    Trigger Times are those of the phases of a heart beat at each place, whatever its length; a time runs volume by volume.
    """
    if dimension is TRIGGER:
        return True
    if bool((table.max(axis=0)[:-1] < table.min(axis=0)[1:]).all()):
        return True
    by_place = table[np.argsort(table[:, 0])]
    return dimension is NUMBER and bool((by_place[:-1, -1] < by_place[1:, 0]).all())


def _sorted(planes: Sequence[Plane], keys: Keys, used: Sequence[Dimension]) -> tuple[tuple[Plane, ...], ...]:
    """The volumes by the attributes that lead, then as the series numbers its images, then by all that tells them apart."""
    volumes: dict[tuple[Hashable, ...], list[Plane]] = defaultdict(list)
    for plane, key in zip(planes, keys, strict=True):
        volumes[key].append(plane)

    def place(key: tuple[Hashable, ...]) -> tuple[object, ...]:
        leading = tuple(value for value, dimension in zip(key, used, strict=True) if dimension.leads)
        numbers = [NUMBER.of(plane) for plane in volumes[key]]
        return leading, min(numbers), key

    return tuple(tuple(volumes[key]) for key in sorted(volumes, key=place))


def _unequal(planes: Sequence[Plane], places: Labels) -> str:
    """What is said of places that do not hold equally many slices; empty if only few places hold more than one."""
    counts = np.bincount(places)
    for dimension in (*DIMENSIONS, *index_dimensions(planes)):
        keys: Keys = [(value,) for value in dimension.values(planes)]
        if len(set(keys)) == counts.max() and _told_apart(keys, places):
            return _sizes(Counter(keys).values(), dimension)
    if np.mean(counts > 1) <= 0.5:
        return ""
    runs = _runs(planes, places)
    if len(runs) == counts.max():
        return _sizes(runs, NUMBER)
    few, many = int(counts.min()), int(counts.max())
    return f"its {len(planes)} slices lie at {len(counts)} places, {few} to {many} at each. {CURE}"


def _runs(planes: Sequence[Plane], places: Labels) -> list[int]:
    """Sizes of the runs of slices, as their Instance Numbers count them, in which no place comes twice."""
    runs: list[set[int]] = [set()]
    for index in sorted(range(len(planes)), key=lambda index: NUMBER.of(planes[index])):
        if int(places[index]) in runs[-1]:
            runs.append(set())
        runs[-1].add(int(places[index]))
    return [len(run) for run in runs]


def _sizes(sizes: Iterable[int], dimension: Dimension) -> str:
    found = sorted(sizes, reverse=True)
    listed = ", ".join(map(str, found[:-1])) + f" and {found[-1]}"
    if len(found) > MOST_COUNTS:
        listed = " and ".join(f"{count} of {size}" for size, count in Counter(found).items())
    return f"it holds {len(found)} volumes of unequal sizes by {dimension.words} ({listed} slices). {CURE}"


def _alike(places: Labels) -> str:
    count = int(np.bincount(places)[0])
    return (
        f"{count} slices lie at each of {int(places.max()) + 1} places, and neither echo, time, b-value, kind nor number of the "
        "images tells volumes apart: leave out what is there twice, or put the slices of each volume into a folder of their own"
    )
