"""Thinned copies of a case's maps, in few levels, through which a page scrolls without reading the volumes.

A sample is the value of one voxel of the file, never a mean of several: a crosshair that shows it agrees with the file to half a
quantum.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.display.windows import beyond
from monai_ifim.io.geometry import Affine
from monai_ifim.io.layers import Layer

IMAGE_SAMPLES = 2**20  # at most of one map: the image that the others lie over
MAP_SAMPLES = 2**18  # of each other map, which vary less from voxel to voxel or are noise
COMPRESSION = 4  # of zlib
LARGEST_GRID = 2**40  # voxels that a record may claim
FINE, COARSE = 4095, 255  # levels of images whose values are no whole numbers, and of maps in their window
MOST_LEVELS = 65535  # that a sample of two bytes can hold
IMAGES = ("source", "input")
LABELS = "labels"  # samples of this kind are the labels themselves

Triple = tuple[int, int, int]
Levels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class StackMap:
    """The samples of one map. kind: of `io.maps.KINDS`, component: of an eigenvector; window: ends of its display, in `unit`.

    low, quantum: a sample of level n is low + n quantum, right to half a quantum; exact: all values are whole numbers, and the
    quantum is 1; clipped: the lowest and the highest level stand for what lies beyond the window too; at_start: the value of
    the file at the stack's `start`. first, step, shape: along each axis, the voxel of the first sample, voxels from one to the
    next, and their number. packed: see `levels`; wide: two bytes a sample; beyond: whether values of the map lie below or above
    its window.
    """

    kind: str
    component: int | None
    window: tuple[float, float]
    unit: str
    low: float
    quantum: float
    exact: bool
    clipped: bool
    at_start: float
    first: Triple
    step: Triple
    shape: Triple
    wide: bool
    packed: bytes = field(repr=False)
    beyond: tuple[bool, bool] = (False, False)

    def levels(self) -> Levels:
        """The levels [*shape]; raises ValueError if the record does not hold them.

        packed is a zlib stream of the levels in C order. Those of two bytes are differences, modulo 65536, from the level before,
        all low bytes before all high ones.
        """
        count = math.prod(self.shape)
        size = count * (2 if self.wide else 1)
        content = np.frombuffer(zlib.decompressobj().decompress(self.packed, size + 1), dtype=np.uint8)
        if content.size != size:
            raise ValueError(f"the samples do not have {size} bytes")
        if not self.wide:
            return content.reshape(self.shape)
        differences = content[:count].astype(np.uint16) + (content[count:].astype(np.uint16) << 8)
        return np.cumsum(differences, dtype=np.uint16).reshape(self.shape)

    def values(self) -> npt.NDArray[np.float64]:
        """The samples in `unit`."""
        return self.low + self.quantum * self.levels().astype(np.float64)


@dataclass(frozen=True, eq=False)
class MapStack:
    """All maps of a case on one grid. shape, affine: of the voxels, RAS mm; start: the most sensitive voxel; extent: along each
    axis the first and the last voxel that the network saw; photograph: the image has no world frame."""

    shape: Triple
    affine: Affine
    start: Triple
    extent: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    photograph: bool
    maps: tuple[StackMap, ...]


def thin(
    layers: Sequence[Layer], affine: Affine, start: Sequence[int], seen: npt.NDArray[Any], photograph: bool = False
) -> MapStack:
    """Thin all layers, which lie on one grid, to what a page can hold; the voxel `start` is a sample of each.

    seen: [*spatial], not zero where the network saw the image, such as the sensitivity.
    """
    shape = _triple((*layers[0].values.shape, 1, 1)[:3])
    place = _triple((*start, 0, 0)[:3])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    maps = tuple(_thinned(layer, shape, place, spacing) for layer in layers)
    return MapStack(shape, affine, place, field_of_view(seen.reshape(shape)), photograph, maps)


def field_of_view(seen: npt.NDArray[Any]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """First and last index along each axis of what is not zero in a volume; of an empty one, the whole."""
    found = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        places = np.flatnonzero(seen.any(axis=others))
        found.append((int(places[0]), int(places[-1])) if places.size else (0, seen.shape[axis] - 1))
    return found[0], found[1], found[2]


def steps_for(shape: Triple, spacing: Sequence[float], most: int) -> Triple:
    """Voxels from one sample to the next along each axis, so that at most `most` remain, as evenly in mm as that allows."""
    steps = [1, 1, 1]
    while math.prod(-(-size // step) for size, step in zip(shape, steps, strict=True)) > most:
        reach = [step * mm if size > step else math.inf for size, step, mm in zip(shape, steps, spacing, strict=True)]
        steps[reach.index(min(reach))] += 1
    return _triple(steps)


def _thinned(layer: Layer, shape: Triple, place: Triple, spacing: Sequence[float]) -> StackMap:
    image = layer.kind in IMAGES
    step = steps_for(shape, spacing, IMAGE_SAMPLES if image else MAP_SAMPLES)
    first = _triple([index % jump for index, jump in zip(place, step, strict=True)])
    volume = layer.values.reshape(shape)
    samples = volume[tuple(slice(begin, None, jump) for begin, jump in zip(first, step, strict=True))]
    low, quantum, exact = _quanta(samples, layer.window, image, layer.kind == LABELS)
    top = COARSE if not image else MOST_LEVELS
    levels = np.rint(np.clip((samples.astype(np.float64) - low) / quantum, 0, top)).astype(np.uint16)
    scale = layer.scale
    return StackMap(
        kind=layer.kind,
        component=layer.component,
        window=(layer.window[0] * scale, layer.window[1] * scale),
        unit=layer.unit,
        low=low * scale,
        quantum=quantum * scale,
        exact=exact,
        clipped=not image and layer.kind != LABELS,
        at_start=float(volume[place]) * scale,
        first=first,
        step=step,
        shape=_triple(levels.shape),
        wide=image,
        packed=zlib.compress(_bytes_of(levels) if image else levels.astype(np.uint8).tobytes(), COMPRESSION),
        beyond=(False, False) if layer.kind == LABELS else beyond(layer.values, layer.window),
    )


def _quanta(samples: npt.NDArray[Any], window: tuple[float, float], image: bool, labels: bool) -> tuple[float, float, bool]:
    """Value of level 0, from one level to the next, and whether that loses nothing."""
    if labels:
        return 0.0, 1.0, True
    if not image:
        return window[0], (window[1] - window[0]) / COARSE, False
    low, high = float(samples.min()), float(samples.max())
    if high - low <= MOST_LEVELS and bool((samples == np.rint(samples)).all()):
        return low, 1.0, True
    return low, (high - low) / FINE or 1.0, False


def _bytes_of(levels: npt.NDArray[np.uint16]) -> bytes:
    """Differences of neighbours, low bytes before high ones: smooth images become small so."""
    differences = np.diff(levels.reshape(-1), prepend=np.uint16(0))
    return (differences & 0xFF).astype(np.uint8).tobytes() + (differences >> 8).astype(np.uint8).tobytes()


def described_stack(stack: MapStack) -> dict[str, Any]:
    """The stack as plain data, without the samples."""
    return {
        "shape": stack.shape,
        "affine": stack.affine.tolist(),
        "start": stack.start,
        "extent": stack.extent,
        "photograph": stack.photograph,
        "maps": [{name: value for name, value in vars(found).items() if name != "packed"} for found in stack.maps],
    }


def read_stack(content: Mapping[str, Any], packed: Sequence[bytes]) -> MapStack:
    """The stack of plain data and samples; raises KeyError, TypeError or ValueError for anything else."""
    affine = np.asarray(content["affine"], dtype=np.float64)
    shape = _sizes(content["shape"])
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.norm(affine[:3, :3], axis=0).all():
        raise ValueError("the affine of the slices is not that of a grid")
    maps = [_read_map(found, shape, data) for found, data in zip(content["maps"], packed, strict=True)]
    (a, b), (c, d), (e, f) = ([int(end) for end in ends] for ends in content["extent"])
    start = _triple([int(index) for index in content["start"]])
    if not all(0 <= index < size for index, size in zip((*start, a, c, e, b, d, f), shape * 3, strict=True)):
        raise ValueError("a place lies outside of the slices")
    return MapStack(shape, affine, start, ((a, b), (c, d), (e, f)), bool(content["photograph"]), tuple(maps))


def _read_map(found: Mapping[str, Any], whole: Triple, packed: bytes) -> StackMap:
    first, step, shape = _triple([int(n) for n in found["first"]]), _sizes(found["step"]), _sizes(found["shape"])
    grid = zip(first, step, shape, whole, strict=True)
    if not all(begin >= 0 and begin + jump * (size - 1) < most for begin, jump, size, most in grid):
        raise ValueError("samples lie outside of the slices")
    if math.prod(shape) > IMAGE_SAMPLES:
        raise ValueError("there are more samples than a page holds")
    low, high, zero, quantum, peak = _finite([*found["window"], found["low"], found["quantum"], found["at_start"]])
    below, above = found.get("beyond", (False, False))
    read = StackMap(
        kind=str(found["kind"]),
        component=None if found["component"] is None else int(found["component"]),
        window=(low, high),
        unit=str(found["unit"]),
        low=zero,
        quantum=quantum,
        exact=bool(found["exact"]),
        clipped=bool(found["clipped"]),
        at_start=peak,
        first=first,
        step=step,
        shape=shape,
        wide=bool(found["wide"]),
        packed=packed,
        beyond=(bool(below), bool(above)),
    )
    read.levels()
    return read


def _finite(values: Sequence[Any]) -> list[float]:
    found = [float(value) for value in values]
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{values} are not all finite numbers")
    return found


def _sizes(values: Sequence[Any]) -> Triple:
    found = _triple([int(value) for value in values])
    if min(found) < 1 or math.prod(found) > LARGEST_GRID:
        raise ValueError(f"{list(found)} are not sizes of slices")
    return found


def _triple(values: Sequence[int]) -> Triple:
    x, y, z = values
    return int(x), int(y), int(z)
