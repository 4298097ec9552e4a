"""The files of one case: OUT/CASE/CASE_ifim_*.nii.gz and their sidecar, written last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.io import atomic
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine
from monai_ifim.io.model import ModelIdentity
from monai_ifim.io.nifti import volume_shape, write_volume
from monai_ifim.io.sidecar import InputIdentity, MapFile, compose_sidecar, plain_affine, write_sidecar

CONTENTS = ("high", "low", "sensitivity", "eigenvectors")
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


def write_case(
    output: Path,
    case: str,
    maps: CaseMaps,
    contents: Sequence[str],
    source: InputIdentity,
    model: ModelIdentity,
    space: str,
    record: Mapping[str, Any],
) -> Path:
    """Write the case's files and then its sidecar; returns the sidecar's path.

    A sidecar of an earlier run is removed first and files that this run does not make again are removed too, half-written
    ones of a killed run among them, so that what lies beside a sidecar is what it describes.
    """
    sidecar = sidecar_path(output, case)
    sidecar.unlink(missing_ok=True)
    atomic.remove_partial(sidecar.parent)
    planned = list(_planned(case, maps, check_contents(contents)))
    names = {name for name, _, _ in planned}
    for stale in sidecar.parent.glob(f"{case}_ifim_*.nii.gz"):
        if stale.name not in names:
            stale.unlink()
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [pool.submit(write_volume, sidecar.parent / name, values, maps.affine) for name, _, values in planned]
        for job in jobs:
            job.result()
    files = [
        _describe(name, content, values, maps.affine, maps.sensitivity_scale if content.startswith("sensitivity") else 1.0)
        for name, content, values in planned
    ]
    write_sidecar(sidecar, compose_sidecar(source, model, space, record, files))
    return sidecar


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


def _describe(name: str, content: str, values: Values, affine: Affine, scale: float) -> MapFile:
    norm = float(np.linalg.norm(values.astype(np.float64))) * scale
    return MapFile(name, content, volume_shape(values.shape), plain_affine(affine), norm, scale)
