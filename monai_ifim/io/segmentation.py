"""The segmentation of a case: one label at each voxel of the case's grid, and what its numbers stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.io.geometry import Affine

Labels = npt.NDArray[np.integer[Any]]

OUTSIDE = -1  # of a voxel that the network did not see
REACH = 1.0  # voxels of the network's grid beyond its outermost centres, up to which the nearest label counts
NO_LABEL, UNSEEN = "no label", "outside of the network's image"
BACKGROUNDS = ("background", "bg", "unlabeled", "unlabelled", "void")  # names of a first class that holds wherever no other does
RULES = {
    "largest": "the label of largest probability",
    "above half": "the label of largest probability where that is above 0.5, else 0: labels may overlap, and one is shown",
}
HALVES = 1e-6  # voxels: places half way between two are those of the higher one, whatever the rounding
SKEW = 1e-3  # voxels that two grids may run apart and still count as parallel
LARGEST_BYTE = 255
BLOCK = 2**22  # voxels whose places are computed together


@dataclass(frozen=True, eq=False)
class Segmentation:
    """values: the label of each voxel [*spatial], whole numbers from 0; names: of labels 0, 1, 2 ...; rule: a key of RULES;
    outside: number of voxels that the network did not see, which have the label of the background, or else the last one."""

    values: Labels = field(repr=False)
    names: tuple[str, ...]
    rule: str
    outside: int = 0

    @property
    def background(self) -> int | None:
        """The label that holds wherever no other does; None if no name says so."""
        return 0 if self.names[0] == NO_LABEL or is_background(self.names[0]) else None

    def voxels(self) -> list[int]:
        """How many voxels each label has, in the order of `names`."""
        found: list[int] = np.bincount(self.values.ravel(), minlength=len(self.names)).tolist()
        return found


def is_background(name: str) -> bool:
    """True for the name of a class that stands for everything else."""
    return name.strip().lower() in BACKGROUNDS


def segmentation(labels: Labels, class_names: Sequence[str], rule: str) -> Segmentation:
    """The segmentation of labels [*spatial] as `core.heads.label_map` numbers them, OUTSIDE where the network saw nothing.

    class_names: of all of the network's outputs. A voxel outside counts as background where a label stands for that; where none
    does, it gets a number of its own after the others.
    """
    names = (NO_LABEL, *class_names) if rule == "above half" else tuple(class_names)
    outside = labels == OUTSIDE
    found = Segmentation(labels, names, rule)
    if outside.any():
        fill = len(names) if found.background is None else found.background
        names = names if found.background is not None else (*names, UNSEEN)
        labels = np.where(outside, fill, labels)
    kind = np.uint8 if len(names) <= 2**8 else np.int16  # both are read by every program
    return Segmentation(np.ascontiguousarray(labels, dtype=kind), names, rule, int(outside.sum()))


def nearest_labels(labels: Labels, of_labels: Affine, affine: Affine, shape: Sequence[int]) -> Labels:
    """Labels [*spatial], 2D or 3D, on another grid: at each voxel of `shape` that of the nearest voxel, int16.

    of_labels, affine: voxel to RAS mm, of the labels and of the other grid. OUTSIDE where the nearest voxel is farther than REACH
    along an axis.
    """
    kept = labels.astype(np.int16, copy=False)
    if kept.shape == tuple(shape) and np.array_equal(of_labels, affine):
        return kept
    source = kept.reshape((*kept.shape, 1, 1)[:3])
    sizes = (*shape, 1, 1)[:3]
    places = np.linalg.inv(of_labels) @ affine
    places[np.flatnonzero(np.array(source.shape) == 1)] = 0.0  # a single slice stands for its plane
    along = _axes_along(places[:3, :3], sizes)
    found = _turned(source, places, sizes) if along is None else _along_axes(source, places, sizes, along)
    return found.reshape(tuple(shape))


def described(
    stated: Mapping[str, Any] | None, found: Segmentation | None, affine: Sequence[Sequence[float]]
) -> dict[str, Any] | None:
    """What the sidecar states of a segmentation; None for another answer.

    stated: of the record, `adapt.components`; found: as it is written, None where it is left out; affine: of its grid. ml of a
    label: its voxels times the volume of one; None for an image of two axes.
    """
    if stated is None:
        return None
    rule = {"rule": stated["rule"], "meaning": RULES[stated["rule"]], "left_out": stated["left_out"]}
    if found is None:
        return rule | {"labels": []}
    voxel = abs(float(np.linalg.det(np.asarray(affine)[:3, :3]))) / 1000 if found.values.ndim == 3 else None
    labels = [
        {"value": value, "name": name, "voxels": count, "ml": None if voxel is None else count * voxel}
        for value, (name, count) in enumerate(zip(found.names, found.voxels(), strict=True))
    ]
    return rule | {"background": found.background, "outside": found.outside, "labels": labels}


@dataclass(frozen=True)
class ShownLabel:
    """A label in the legend of a picture. voxels, ml: of the segmentation; expected, tolerance: of its volume as the network
    states it, ml; None where unknown."""

    value: int
    name: str
    voxels: int
    ml: float | None = None
    expected: float | None = None
    tolerance: float | None = None


def shown_labels(sidecar: Mapping[str, Any]) -> tuple[ShownLabel, ...]:
    """The labels of a sidecar's segmentation without its background and those that no voxel has, the largest first; expected
    volumes where the answer is volumes in ml."""
    stated, volumes = sidecar["segmentation"], sidecar.get("volumes") or {}
    expected = {each["name"]: each for each in volumes.get("labels", ()) if volumes["unit"] == "ml"}
    found = [
        ShownLabel(
            each["value"],
            each["name"],
            each["voxels"],
            each["ml"],
            *(expected.get(each["name"], {}).get(number) for number in ("expected", "tolerance")),
        )
        for each in stated["labels"]
        if each["value"] != stated["background"] and each["voxels"] > 0
    ]
    return tuple(sorted(found, key=lambda label: -label.voxels))


def in_bytes(values: Labels, labels: Sequence[ShownLabel]) -> tuple[Labels, tuple[ShownLabel, ...]]:
    """Labels [*spatial] and their legend with numbers that a pixel of one byte can hold, for pictures.

    labels: of `shown_labels`. Where all of their numbers fit, nothing changes. Where not, they are numbered from 1 on, the
    largest first, and all of those for which no number is left share the last one; all other values become 0.
    """
    if all(label.value <= LARGEST_BYTE for label in labels):
        return values, tuple(labels)
    numbered = tuple(replace(label, value=min(place, LARGEST_BYTE)) for place, label in enumerate(labels, start=1))
    table = np.zeros(int(values.max()) + 1, dtype=np.uint8)
    for old, new in zip(labels, numbered, strict=True):
        table[old.value] = new.value
    return table[values], numbered


def _axes_along(directions: npt.NDArray[np.float64], sizes: Sequence[int]) -> tuple[int, ...] | None:
    """For each axis of the labels the axis of the other grid that runs along it; None where they are turned to each other by
    more than SKEW voxels over the grid."""
    largest = np.abs(directions).argmax(1)
    for axis, own in enumerate(largest):
        astray = np.abs(directions[axis]) * (np.array(sizes) - 1)
        astray[own] = 0.0
        if astray.sum() > SKEW:
            return None
    free = [axis for axis in range(3) if axis not in set(largest.tolist())]
    used: list[int] = []
    for axis, own in enumerate(largest.tolist()):  # an axis of one voxel runs along none: it takes one that is left
        used.append(free.pop() if not directions[axis].any() and (own in largest[:axis] or own in largest[axis + 1 :]) else own)
    return tuple(used) if sorted(used) == [0, 1, 2] else None


def _along_axes(source: Labels, places: Affine, sizes: Sequence[int], along: Sequence[int]) -> Labels:
    """Labels on a grid whose axes run along those of `source`: axis by axis."""
    index, inside = [], []
    for axis, own in enumerate(along):
        place = places[axis, own] * np.arange(sizes[own]) + places[axis, 3]
        nearest, seen = _nearest(place, source.shape[axis])
        index.append(nearest)
        inside.append(seen)
    found = source[np.ix_(*index)].copy()
    for axis, seen in enumerate(inside):
        found[(slice(None),) * axis + (~seen,)] = OUTSIDE
    return np.ascontiguousarray(found.transpose(np.argsort(along)))


def _turned(source: Labels, places: Affine, sizes: Sequence[int]) -> Labels:
    """Labels on a grid that is turned to that of `source`: voxel by voxel, in slabs along the first axis."""
    result = np.empty(sizes, dtype=np.int16)
    step = max(1, BLOCK // max(1, sizes[1] * sizes[2]))
    for start in range(0, sizes[0], step):
        slab = np.ix_(*(np.arange(size, dtype=np.float64) for size in (min(step, sizes[0] - start), *sizes[1:])))
        axes = [sum(places[axis, k] * slab[k] for k in range(3)) + places[axis, 3] + places[axis, 0] * start for axis in range(3)]
        index, inside = zip(*(_nearest(place, source.shape[axis]) for axis, place in enumerate(axes)), strict=True)
        result[start : start + step] = np.where(inside[0] & inside[1] & inside[2], source[index], OUTSIDE)
    return result


def _nearest(place: npt.NDArray[np.float64], size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """The nearest voxel of an axis at places in its voxels, and whether it is within REACH."""
    nearest = np.floor(np.clip(place, 0.0, size - 1) + 0.5 + HALVES).astype(np.intp)
    return nearest, (place >= -REACH) & (place <= size - 1 + REACH)
