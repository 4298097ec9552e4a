"""The files of one case: OUT/CASE/CASE_ifim_*.nii.gz and their sidecar, written last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_ifim.display.saturation import is_saturated
from monai_ifim.display.windows import display_window
from monai_ifim.io import atomic
from monai_ifim.io.case_files import REMOVED_FIRST, UNFINISHED, is_file_of, sidecar_path
from monai_ifim.io.case_folder import check_name
from monai_ifim.io.case_maps import CaseMaps, Values, check_contents
from monai_ifim.io.containment import LinkedFolderError
from monai_ifim.io.layers import Layer
from monai_ifim.io.maps import MapContent
from monai_ifim.io.nifti import volume_shape, write_volume
from monai_ifim.io.parametric_map.source import ReferencedSeries
from monai_ifim.io.parametric_map.write import write_parametric_maps
from monai_ifim.io.planes import CasePlanes, cut_planes, write_planes
from monai_ifim.io.scan import Scan
from monai_ifim.io.segmentation import described, in_bytes, shown_labels
from monai_ifim.io.sidecar import CaseFacts, MapFile, compose_sidecar, plain_affine, write_sidecar
from monai_ifim.io.slicer.bundle import write_scene_bundle
from monai_ifim.io.slicer.scene import write_scene
from monai_ifim.io.stacks import thin
from monai_ifim.io.units import HOUNSFIELD

MOST_EIGENVECTORS = 3  # that the page shows, the leading ones
BLOCK = 2**18  # values that are converted to float64 at once
WRITERS = 4  # threads: compression and disk do not hold Python's lock


@dataclass(frozen=True)
class Companions:
    """Files beside the maps of a case: the scan in its own units, Parametric Maps that refer to a DICOM series, and the scene as
    one file."""

    scan: Scan | None = None
    series: ReferencedSeries | None = None
    scene_bundle: bool = False


@dataclass(frozen=True)
class WrittenCase:
    """A case on disk: the path of its sidecar, and the content of that."""

    path: Path
    sidecar: Mapping[str, Any]


def write_case(
    output: Path, case: str, maps: CaseMaps, contents: Sequence[str], facts: CaseFacts, companions: Companions | None = None
) -> WrittenCase:
    """Write the case's files and then its sidecar.

    The sidecar of an earlier run and files that this run does not write again are removed first, so that a sidecar describes
    all files beside it. If writing fails, no file of the case is left. Whoever else writes this case waits. Raises OutputError,
    also where OUT/CASE is a link, GeometryError, OSError.
    """
    check_name(output, case)
    sidecar = sidecar_path(output, case)
    mark = sidecar.with_name(UNFINISHED)
    with atomic.held_folder(sidecar.parent):
        atomic.touch(mark)
        atomic.remove(sidecar)
        atomic.remove_partial(sidecar.parent)
        try:
            content = _write(sidecar, case, maps, contents, facts, companions or Companions())
        except BaseException:
            _remove(sidecar.parent, case)
            raise
        atomic.remove(mark)
    return WrittenCase(sidecar, content)


def _write(
    sidecar: Path, case: str, maps: CaseMaps, contents: Sequence[str], facts: CaseFacts, beside: Companions
) -> dict[str, Any]:
    planned: dict[MapContent, Values] = {each: maps.values(each) for each in maps.contents(check_contents(contents))}
    if beside.scan is not None:
        planned[MapContent("source")] = beside.scan.values
    names = {each: f"{case}_ifim_{each.stem}.nii.gz" for each in planned}
    _remove_stale(sidecar.parent, case, set(names.values()))
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [pool.submit(write_volume, sidecar.parent / names[each], values, maps.affine) for each, values in planned.items()]
        units = {"input": facts.unit, "low": facts.unit, "source": "" if beside.scan is None else beside.scan.unit}
        files = [_describe(names[each], each, values, maps, units.get(each.kind, "")) for each, values in planned.items()]
        files = [replace(file, sha256=job.result()) for file, job in zip(files, jobs, strict=True)]
    segmentation = described(facts.record.get("segmentation"), maps.segmentation, plain_affine(maps.affine))
    content = compose_sidecar(case, facts, files, None if beside.scan is None else beside.scan.unit, segmentation)
    written = {file.file: file.sha256 for file in files}
    planes = _planes(maps, content, beside.scan)
    with ThreadPoolExecutor(1) as pool:  # the disk is waited for once
        pictures = pool.submit(write_planes, sidecar.parent / content["planes"], planes)
        written |= write_scene(sidecar.parent, content, planes.point)
        written[content["planes"]] = pictures.result()
    if beside.scene_bundle:
        written[f"{case}.mrb"] = write_scene_bundle(sidecar.parent / content["scene"])
    if beside.series is not None:
        of_maps = write_parametric_maps(sidecar.parent, beside.series, maps, contents, content)
        content["parametric_maps"] = list(of_maps)
        written |= of_maps
    content["written"] = dict(sorted(written.items()))
    write_sidecar(sidecar, content)
    return content


def _remove(folder: Path, case: str) -> None:
    """Remove all files of a case, and its folder if it is then empty; a link that took the folder's name is left alone."""
    with suppress(LinkedFolderError):
        atomic.remove_files(folder, lambda name: is_file_of(case, name))
        atomic.remove(folder / UNFINISHED)
    with suppress(OSError):  # it holds other files
        folder.rmdir()


def _remove_stale(folder: Path, case: str, kept: set[str]) -> None:
    """Remove files of an earlier run of this case, except those named in `kept`, which will be replaced."""
    atomic.remove_files(folder, lambda name: name not in kept and is_file_of(case, name, REMOVED_FIRST))


def _describe(name: str, content: MapContent, values: Values, maps: CaseMaps, unit: str) -> MapFile:
    if content.kind == "labels":
        ends = (0.0, max(1.0, float(values.max(initial=0))))
        return MapFile(name, content, volume_shape(values.shape), plain_affine(maps.affine), None, window=ends)
    scale = maps.scale(content)
    norm = _norm(values) * scale
    shown = maps.input[content.channel - 1] if content.kind == "low" else values  # image and low share a window
    window = display_window(content.kind, shown, unit == HOUNSFIELD, float(np.abs(maps.input).max(initial=0.0)))
    return MapFile(name, content, volume_shape(values.shape), plain_affine(maps.affine), norm, scale, window)


def _norm(values: Values) -> float:
    """L2 norm, summed in float64 without a copy of the whole map."""
    flat = values.reshape(-1)
    parts = (flat[start : start + BLOCK].astype(np.float64) for start in range(0, flat.size, BLOCK))
    return math.sqrt(sum(float(part @ part) for part in parts))


def _planes(maps: CaseMaps, sidecar: Mapping[str, Any], scan: Scan | None) -> CasePlanes:
    """Planes of source (or input), labels, high, low and sensitivity, first channel, through the most sensitive voxel, and a
    stack of the same and of the first eigenvectors; of what files hold alone."""
    sensitivity = maps.sensitivity[0] if len(maps.sensitivity) == 1 else maps.sensitivity.sum(0)
    index = [int(i) for i in np.unravel_index(int(sensitivity.argmax()), sensitivity.shape)]
    described = {MapContent.of(file): file for file in sidecar["files"] if file["channel"] == 1}
    shown = ["input" if scan is None else "source", *(["labels"] if maps.segmentation is not None else [])]
    contents = [MapContent(kind) for kind in (*shown, "high", "low", "sensitivity")]
    contents += [MapContent("eigenvector", n) for n in range(1, MOST_EIGENVECTORS + 1)]
    legend = shown_labels(sidecar) if "labels" in shown else ()
    layers = []
    for each in contents:
        if each not in described:
            continue
        file = described[each]
        values = scan.values if scan is not None and each.kind == "source" else maps.values(each)
        if each.kind == "labels":
            values, legend = in_bytes(values, legend)
        layers.append(Layer(each.kind, values, tuple(file["window"]), file["unit"], file["scale"], each.component))
    photograph = sidecar["input"]["reader"] == "PILReader"
    drawn = [each for each in layers if each.component is None]
    planes = cut_planes(drawn, maps.affine, index, photograph, legend)
    stack = thin(layers, maps.affine, index, sensitivity, photograph)
    return replace(planes, stack=stack, saturated=is_saturated(sidecar))
