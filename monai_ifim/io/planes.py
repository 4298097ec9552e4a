"""Planes through the most sensitive point of a case, as small pictures for overviews that do not read the volumes."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from monai_ifim.display.windows import beyond
from monai_ifim.io import atomic
from monai_ifim.io.errors import InputError, single_line
from monai_ifim.io.geometry import VIEWS, Affine, cut
from monai_ifim.io.layers import Layer
from monai_ifim.io.segmentation import ShownLabel
from monai_ifim.io.stacks import MapStack, described_stack, read_stack

LARGEST_SIDE = 256  # pixels
LABELS = "labels"  # kind of a layer and of a map
LONGEST_CAUSE = 200  # characters of the cause that an error message quotes

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Plane:
    """One picture. view: "axial", "coronal", "sagittal", or "image" for a photograph, which has no world frame.

    values: [rows, columns] as shown, 0 at the window's low end and 255 at its high one; spacing: mm per pixel along rows and
    columns, 0 without a world frame; edges: letters at left, right, top, bottom; offset: mm along the normal.
    """

    view: str
    values: Pixels
    spacing: tuple[float, float]
    edges: tuple[str, str, str, str]
    offset: float

    @property
    def has_frame(self) -> bool:
        """True if the plane has a place and a scale in the world."""
        return min(self.spacing) > 0

    @property
    def extent(self) -> tuple[float, float]:
        """Height and width, in mm, or in pixels without a world frame."""
        rows, columns = self.values.shape
        down, across = self.spacing if self.has_frame else (1.0, 1.0)
        return rows * down, columns * across


@dataclass(frozen=True, eq=False)
class PlaneMap:
    """The planes of one map, first channel. kind: "source", "input", "high" and so on; window: values at 0 and 255, in `unit`;
    beyond: whether values of the whole map lie below or above it. Pixels of the kind "labels" are the labels themselves."""

    kind: str
    window: tuple[float, float]
    unit: str
    planes: tuple[Plane, ...]
    beyond: tuple[bool, bool] = (False, False)


@dataclass(frozen=True, eq=False)
class CasePlanes:
    """Planes of a case's maps through one point, in RAS mm. labels: of the planes of a segmentation, the largest first;
    saturated: nothing moves the answer, so that the maps are no findings and are drawn in grey; stack: slices of them."""

    point: tuple[float, float, float]
    maps: tuple[PlaneMap, ...]
    labels: tuple[ShownLabel, ...] = ()
    saturated: bool = False
    stack: MapStack | None = None


def cut_planes(
    layers: Sequence[Layer],
    affine: Affine,
    index: Sequence[int],
    photograph: bool = False,
    labels: Sequence[ShownLabel] = (),
) -> CasePlanes:
    """Cut all layers, which lie on one grid, at the voxel `index`; of a single slice, that slice alone.

    photograph: the image has no world frame and is shown as it is. labels: of a layer of the kind "labels", whose values fit into
    a byte (`segmentation.in_bytes`).
    """
    place = (*index, 0)[:3]
    shape = (*layers[0].values.shape, 1)[:3]
    maps = []
    for layer in layers:
        volume = layer.values.reshape(shape)
        planes = [_plane(layer, volume, affine, view, place, photograph) for view in _views(affine, shape)]
        low, high = layer.window
        outside = (False, False) if layer.kind == LABELS else beyond(layer.values, layer.window)
        maps.append(PlaneMap(layer.kind, (low * layer.scale, high * layer.scale), layer.unit, tuple(planes), outside))
    point = affine[:3, :3] @ np.asarray(place) + affine[:3, 3]
    return CasePlanes((float(point[0]), float(point[1]), float(point[2])), tuple(maps), tuple(labels))


def write_planes(path: Path, planes: CasePlanes, root: Path | None = None) -> str:
    """Write the pictures and a JSON text that describes them as one .npz, whole or absent; returns its hex SHA-256.

    root: as `atomic` takes it.
    """
    arrays = {f"{i}-{j}": plane.values for i, found in enumerate(planes.maps) for j, plane in enumerate(found.planes)}
    description = asdict(replace(planes, stack=None))
    if planes.stack is not None:
        arrays |= {f"stack-{i}": np.frombuffer(found.packed, dtype=np.uint8) for i, found in enumerate(planes.stack.maps)}
        description["stack"] = described_stack(planes.stack)
    for found in description["maps"]:
        for plane in found["planes"]:
            del plane["values"]
    text = np.frombuffer(json.dumps(description).encode("utf-8"), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, description=text, **arrays)
    return atomic.write_bytes(path, buffer.getvalue(), root)


def read_planes(path: Path) -> CasePlanes:
    """Read a file of `write_planes`; raises InputError if it is none."""
    try:
        with np.load(path, allow_pickle=False) as content:
            description = json.loads(content["description"].tobytes())
            maps = [_read_map(found, i, content) for i, found in enumerate(description["maps"])]
            x, y, z = _numbers(description["point"])
            labels = tuple(map(_read_label, description.get("labels", [])))
            saturated, stack = description.get("saturated") is True, _read_stack(description.get("stack"), content)
            return CasePlanes((x, y, z), tuple(maps), labels, saturated, stack)
    except Exception as error:  # zip and JSON raise many types for a damaged archive
        said = single_line(str(error))[:LONGEST_CAUSE]
        raise InputError(f"{path.name}: not a readable record of planes ({said}): run the case again.") from error


def _read_stack(found: dict[str, Any] | None, content: Any) -> MapStack | None:
    if found is None:
        return None
    return read_stack(found, [content[f"stack-{i}"].tobytes() for i in range(len(found["maps"]))])


def _read_map(found: dict[str, Any], i: int, content: Any) -> PlaneMap:
    planes = tuple(_read_plane(plane, content[f"{i}-{j}"]) for j, plane in enumerate(found["planes"]))
    low, high = _numbers(found["window"])
    kind = _text(found["kind"] if "kind" in found else found["content"])
    below, above = found.get("beyond", (False, False))  # which files of earlier versions do not state
    return PlaneMap(kind, (low, high), _text(found["unit"]), planes, (bool(below), bool(above)))


def _read_label(found: dict[str, Any]) -> ShownLabel:
    value, voxels = found["value"], found["voxels"]
    if type(value) is not int or type(voxels) is not int or value < 0:
        raise ValueError(f"{value!r} with {voxels!r} voxels is not a label")
    known = {name: found[name] for name in ("ml", "expected", "tolerance") if found[name] is not None}
    _numbers(list(known.values()))
    return ShownLabel(value, _text(found["name"]), voxels, **{name: float(number) for name, number in known.items()})


def _read_plane(found: dict[str, Any], values: npt.NDArray[Any]) -> Plane:
    if values.dtype != np.uint8 or values.ndim != 2 or min(values.shape) < 1 or max(values.shape) > LARGEST_SIDE:
        raise ValueError(f"an array {list(values.shape)} of {values.dtype} is not a picture")
    down, across = _numbers(found["spacing"])
    left, right, top, bottom = map(_text, found["edges"])
    (offset,) = _numbers([found["offset"]])
    if down < 0 or across < 0:
        raise ValueError("a spacing is below zero")
    return Plane(_text(found["view"]), values, (down, across), (left, right, top, bottom), offset)


def _numbers(values: Sequence[Any]) -> list[float]:
    found = [float(value) for value in values]
    if not all(map(math.isfinite, found)):
        raise ValueError(f"{values} are not all finite numbers")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _views(affine: Affine, shape: tuple[int, ...]) -> list[str]:
    """All three views; of a single slice, the one in its plane."""
    flat = [view for view in VIEWS if shape[cut(affine, view).normal] == 1]
    return flat[:1] or list(VIEWS)


def _plane(layer: Layer, volume: npt.NDArray[Any], affine: Affine, view: str, place: Sequence[int], photograph: bool) -> Plane:
    chosen = cut(affine, view)
    picture = chosen.plane(volume, place[chosen.normal])
    labels = layer.kind == LABELS
    pixels = picture.astype(np.uint8) if labels else _pixels(picture, layer.window)
    values, spacing = _shrunk(pixels, chosen.spacing, Image.Resampling.NEAREST if labels else Image.Resampling.BOX)
    if photograph:
        return Plane("image", values, (0.0, 0.0), ("", "", "", ""), 0.0)
    normal = affine[:3, chosen.normal] / np.linalg.norm(affine[:3, chosen.normal])
    normal = normal * np.sign(normal[np.argmax(np.abs(normal))])  # towards right, front or head
    offset = float(normal @ (affine[:3, :3] @ np.asarray(place) + affine[:3, 3]))
    return Plane(view, values, spacing, chosen.edges, offset)


def _pixels(values: npt.NDArray[Any], window: tuple[float, float]) -> Pixels:
    low, high = window
    scaled = (values.astype(np.float64) - low) / (high - low)
    pixels: Pixels = np.rint(np.clip(scaled, 0.0, 1.0) * 255).astype(np.uint8)
    return pixels


def _shrunk(pixels: Pixels, spacing: tuple[float, float], how: Image.Resampling) -> tuple[Pixels, tuple[float, float]]:
    """The picture reduced so that no side is longer than LARGEST_SIDE."""
    rows, columns = pixels.shape
    share = LARGEST_SIDE / max(rows, columns)
    if share >= 1:
        return np.ascontiguousarray(pixels), spacing
    size = (max(1, round(columns * share)), max(1, round(rows * share)))
    small = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, how))
    return small, (spacing[0] * rows / size[1], spacing[1] * columns / size[0])
