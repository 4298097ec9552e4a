"""A run made with the package's own writer, to be viewed: a tilted volume, a single slice, a photograph, a damaged case."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.io.case import CONTENTS, CaseMaps, Companions, write_case
from monai_ifim.io.model import ModelIdentity
from monai_ifim.io.scan import Scan
from monai_ifim.io.sidecar import CaseFacts, InputIdentity

Array = npt.NDArray[Any]
ODD = "odd 100% & <b>"


class Planted(NamedTuple):
    """A case of the run. blob: voxel of the only sensitivity, of value `peak`; opposite: voxel of the only negative part."""

    name: str
    shape: tuple[int, ...]
    affine: Array
    blob: tuple[int, int, int]
    opposite: tuple[int, int, int]
    peak: float
    reader: str


class Run(NamedTuple):
    """A folder of results and what was planted in its cases."""

    output: Path
    cases: dict[str, Planted]


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory, turned: Callable[..., Array]) -> Run:
    """Four cases; the last one's sensitivity is cut short."""
    output = tmp_path_factory.mktemp("viewed") / "results"
    tilted = turned((2.1, 1.7, 3.3), (0.12, -0.09, 0.15), flip=True)
    sagittal = np.array([[0, 0, 2.7, -9.0], [-1.1, 0, 0, 30.25], [0, -1.4, 0, -21.0], [0, 0, 0, 1]])
    photograph = np.diag([-1.0, -1.0, 1.0, 1.0])
    cases = [
        Planted("a tilted", (23, 29, 13), tilted, (6, 20, 4), (16, 8, 9), 2.5, "NibabelReader"),
        Planted("b sagittal", (31, 25, 1), sagittal, (9, 5, 0), (22, 18, 0), 0.75, "ITKReader"),
        Planted("c photograph", (27, 19), photograph, (20, 4, 0), (3, 12, 0), 1.5, "PILReader"),
        Planted(ODD, (11, 9, 7), tilted, (3, 4, 2), (8, 5, 5), 1.0, "NibabelReader"),
    ]
    for case in cases:
        _write(output, case)
    damaged = output / ODD / f"{ODD}_ifim_sensitivity.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    return Run(output, {case.name: case for case in cases})


def _write(output: Path, case: Planted) -> None:
    ramp = sum(np.arange(size).reshape(-1, *[1] * (len(case.shape) - 1 - axis)) for axis, size in enumerate(case.shape))
    ramp = (ramp / np.max(ramp)).astype(np.float32)
    flat = len(case.shape) == 2
    blob, opposite = (place[:2] if flat else place for place in (case.blob, case.opposite))
    sensitivity, signed = np.zeros_like(ramp), np.zeros_like(ramp)
    sensitivity[blob], signed[blob], signed[opposite] = case.peak, 0.5, -0.5
    maps = CaseMaps(case.affine, ramp[None], signed[None], (ramp - signed)[None], sensitivity[None], np.stack([signed[None]] * 2))
    source = InputIdentity("in.nii.gz", "0" * 64, case.shape, case.affine.tolist(), case.reader)
    model = ModelIdentity("Toy", "1.2", "ab" * 32, ("no lesion", "lesion", "motion"), "cd" * 32)
    record = {
        "head": "categorical",
        "probabilities": [0.125, 0.8125, 0.0625],
        "logits": [0.1, 1.9, -0.6],
        "eigenvalues": [0.75, 0.25],
        "rank": 2,
        "energy_kept": 0.8,
        "trace": 1.25,
        "locality_radius": [0.5, None],
        "method": "exact",
        "device": "cpu",
        "dtype": "float32",
        "seconds": 0.25,
    }
    scan = None if flat else Scan((1000 * ramp).astype(np.int16), case.affine, "Hounsfield units")
    write_case(output, case.name, maps, CONTENTS, CaseFacts(source, model, "native", record), Companions(scan))
