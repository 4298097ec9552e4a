"""The files of one case: OUT/CASE/CASE_ifim_*.nii.gz and their sidecar, written last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.io import atomic
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine
from monai_ifim.io.nifti import volume_shape, write_volume
from monai_ifim.io.parametric_map.write import write_parametric_maps
from monai_ifim.io.planes import CasePlanes, Layer, cut_planes, write_planes
from monai_ifim.io.scan import Scan
from monai_ifim.io.sidecar import CaseFacts, MapFile, compose_sidecar, plain_affine, write_sidecar
from monai_ifim.io.slicer.bundle import write_scene_bundle
from monai_ifim.io.slicer.scene import write_scene
from monai_ifim.io.source import Source
from monai_ifim.io.windows import display_window
from monai_ifim.options import CONTENTS

WRITERS = 4  # igzip and the disk work outside Python's lock

Values = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CaseMaps:
    """Maps of one case on one grid. input, high, low, sensitivity: [channel, *spatial]; eigenvectors: [k, channel, *spatial].

    sensitivity_scale: what the stored sensitivity has to be multiplied by; 1 unless float32 could not hold it.
    """

    affine: Affine
    input: Values
    high: Values
    low: Values
    sensitivity: Values
    eigenvectors: Values
    sensitivity_scale: float = 1.0


def check_contents(contents: Sequence[str]) -> tuple[str, ...]:
    """The contents to save, in their canonical order; raises OutputError for an unknown one."""
    unknown = sorted(set(contents) - set(CONTENTS))
    if unknown:
        raise OutputError(f"cannot save {', '.join(unknown)}: choose from {', '.join(CONTENTS)}.")
    return tuple(name for name in CONTENTS if name in contents)


def sidecar_path(output: Path, case: str) -> Path:
    """Where the case's sidecar is; it exists only once the case is whole."""
    return output / case / f"{case}_ifim.json"


@dataclass(frozen=True)
class Companions:
    """What lies beside the maps of a case: the scan in its own units, Parametric Maps that refer to the DICOM source named,
    the scene as one file to hand on."""

    scan: Scan | None = None
    dicom: Source | None = None
    scene_bundle: bool = False


def write_case(
    output: Path, case: str, maps: CaseMaps, contents: Sequence[str], facts: CaseFacts, companions: Companions | None = None
) -> Path:
    """Write the case's files and then its sidecar; returns the sidecar's path.

    A sidecar of an earlier run is removed first and files that this run does not make again are removed too, half-written
    ones of a killed run among them, so that what lies beside a sidecar is what it describes. Where it fails nothing of the
    case is left. Raises OutputError, GeometryError; OSError where the disk does not take it.
    """
    if not is_plain_name(case):
        raise OutputError(f"a case cannot be called {case!r}, which is no name of a folder in {output.name}.")
    sidecar = sidecar_path(output, case)
    sidecar.unlink(missing_ok=True)
    atomic.remove_partial(sidecar.parent)
    try:
        _write(sidecar, case, maps, contents, facts, companions or Companions())
    except BaseException:
        _remove(sidecar.parent, case)
        raise
    return sidecar


def _write(sidecar: Path, case: str, maps: CaseMaps, contents: Sequence[str], facts: CaseFacts, beside: Companions) -> None:
    planned = list(_planned(case, maps, check_contents(contents)))
    if beside.scan is not None:
        planned.append((f"{case}_ifim_source.nii.gz", "source", beside.scan.values))
    _remove_stale(sidecar.parent, case, {name for name, _, _ in planned})
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [pool.submit(write_volume, sidecar.parent / name, values, maps.affine) for name, _, values in planned]
        units = {"input": facts.unit, "source": "" if beside.scan is None else beside.scan.unit}
        files = [_describe(name, content, values, maps, units.get(content, "")) for name, content, values in planned]
        for job in jobs:
            job.result()
    content = compose_sidecar(case, facts, files, None if beside.scan is None else beside.scan.unit)
    planes = _planes(maps, content, beside.scan)
    write_planes(sidecar.parent / content["planes"], planes)
    scene = write_scene(sidecar.parent, content, planes.point)
    if beside.scene_bundle:
        write_scene_bundle(scene)
    if beside.dicom is not None:
        written = write_parametric_maps(sidecar.parent, beside.dicom, maps, contents, content)
        content["parametric_maps"] = [path.name for path in written]
    write_sidecar(sidecar, content)


def _remove(folder: Path, case: str) -> None:
    """Everything that is written for a case, and its folder where nobody else has put something into it."""
    _remove_stale(folder, case, set())
    for pattern in ("_planes.npz", "_*.ctbl", "_spectrum*.tsv", "_ifim.json"):
        for file in folder.glob(f"{escape(case)}{pattern}"):
            file.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _remove_stale(folder: Path, case: str, kept: set[str]) -> None:
    """Files of an earlier run of this case that the new one may not write over."""
    patterns = ("_ifim_*.nii.gz", "_ifim_*.dcm", ".mrml", ".mrb")
    for stale in [file for pattern in patterns for file in folder.glob(f"{escape(case)}{pattern}")]:
        if stale.name not in kept:
            stale.unlink()


def _planned(case: str, maps: CaseMaps, contents: Sequence[str]) -> Iterator[tuple[str, str, Values]]:
    """(file name, content, [*spatial] values) for every file of the case."""
    yield from _channels(f"{case}_ifim_input", "input", maps.input)
    for name in contents:
        if name != "eigenvectors":
            yield from _channels(f"{case}_ifim_{name}", name, getattr(maps, name))
            continue
        for i, vector in enumerate(maps.eigenvectors, start=1):
            yield from _channels(f"{case}_ifim_eigenvector-{i:02d}", f"eigenvector {i}", vector)


def _channels(stem: str, content: str, values: Values) -> Iterator[tuple[str, str, Values]]:
    """The first channel goes by the plain name, each further one by a name with its number."""
    for i, channel in enumerate(values, start=1):
        suffix = "" if i == 1 else f"_channel-{i:02d}"
        yield f"{stem}{suffix}.nii.gz", content if i == 1 else f"{content}, channel {i}", channel


def _describe(name: str, content: str, values: Values, maps: CaseMaps, unit: str) -> MapFile:
    scale = maps.sensitivity_scale if content.startswith("sensitivity") else 1.0
    norm = float(np.linalg.norm(values.astype(np.float64))) * scale
    window = display_window(content, values, unit, float(np.abs(maps.input).max(initial=0.0)))
    return MapFile(name, content, volume_shape(values.shape), plain_affine(maps.affine), norm, scale, window)


def _planes(maps: CaseMaps, sidecar: Mapping[str, Any], scan: Scan | None) -> CasePlanes:
    """Source (or input), high, low and sensitivity, first channel, cut at the most sensitive voxel."""
    sensitivity = maps.sensitivity[0] if len(maps.sensitivity) == 1 else maps.sensitivity.sum(0)
    index = np.unravel_index(int(sensitivity.argmax()), sensitivity.shape)
    described = {file["content"]: file for file in sidecar["files"]}
    layers = []
    shown = {"input": maps.input} if scan is None else {"source": scan.values[None]}
    for name, values in (shown | {"high": maps.high, "low": maps.low, "sensitivity": maps.sensitivity}).items():
        if name not in described:
            continue
        file = described[name]
        unit = sidecar["units"].get(name, sidecar["units"]["maps"])
        layers.append(Layer(name, values[0], tuple(file["window"]), unit, file["scale"]))
    photograph = sidecar["input"]["reader"] == "PILReader"
    return cut_planes(layers, maps.affine, [int(i) for i in index], photograph)
