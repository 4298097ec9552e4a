"""The segmentation of a case: one label at each voxel of the case's grid, and what its numbers stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
BLOCK = 2**22  # voxels whose places are computed together


@dataclass(frozen=True, eq=False)
class Segmentation:
    """values: the label of each voxel [*spatial], whole numbers from 0; names: of labels 0, 1, 2 ...; rule: a key of RULES."""

    values: Labels = field(repr=False)
    names: tuple[str, ...]
    rule: str

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
    return Segmentation(np.ascontiguousarray(labels, dtype=kind), names, rule)


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
    flat = np.flatnonzero(np.array(source.shape) == 1)
    places[flat] = 0.0  # a single slice stands for its plane
    result = np.empty(sizes, dtype=np.int16)
    step = max(1, BLOCK // max(1, sizes[1] * sizes[2]))
    rest = [places[:3, axis, None, None, None] * _along(sizes[axis], axis) for axis in (1, 2)]
    for start in range(0, sizes[0], step):
        first = places[:3, 0, None, None, None] * _along(min(step, sizes[0] - start), 0, start)
        index = first + rest[0] + rest[1] + places[:3, 3, None, None, None]
        result[start : start + step] = _looked_up(source, index)
    return result.reshape(tuple(shape))


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
    return rule | {"background": found.background, "labels": labels}


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


def _along(size: int, axis: int, start: int = 0) -> npt.NDArray[np.float64]:
    """The indices along an axis, from `start`, as [1, size, 1, 1] and the like."""
    shape = [1, 1, 1, 1]
    shape[1 + axis] = size
    return np.arange(start, start + size, dtype=np.float64).reshape(shape)


def _looked_up(source: Labels, index: npt.NDArray[np.float64]) -> Labels:
    """Labels at places [3, ...] in voxels of `source`."""
    ends = np.array(source.shape, dtype=np.float64)[:, None, None, None] - 1
    inside = ((index >= -REACH) & (index <= ends + REACH)).all(0)
    nearest = np.floor(np.clip(index, 0.0, ends) + 0.5).astype(np.intp)
    found: Labels = np.where(inside, source[tuple(nearest)], OUTSIDE)
    return found
