"""Made-up runs of cases with pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from chromium import Browser, chromium
from monai_ifim.io.layers import Layer
from monai_ifim.io.planes import CasePlanes, Plane, PlaneMap, cut_planes, write_planes
from monai_ifim.io.stacks import thin
from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.table import CaseRow, write_run, write_table

Array = npt.NDArray[Any]
Content = dict[str, Any]

CLASSES = ("normal", "pneumonia", "mass")
MAP_UNITS = {
    "source": "Hounsfield units",
    "high": "network input intensity",
    "low": "network input intensity",
    "sensitivity": "nats per (network input intensity)^2",
}
WINDOWS = {"source": (-1000.0, 400.0), "high": (-0.25, 0.25), "low": (-1.0, 1.0), "sensitivity": (0.0, 3e-4)}


def make_row(name: str, **more: Any) -> CaseRow:
    """A case of a run; what is not said is that of a sure, usual one."""
    fields: Content = {
        "status": "done", "input": f"{name}.nii.gz", "prediction": "normal", "probability": 0.9, "rank": 2, "energy_kept": 0.995,
        "eigenvalue": 0.375, "trace": 0.5, "seconds": 1.5, "eigenvalues": (0.375, 0.125), "class_names": CLASSES,
        "probabilities": (0.9, 0.07, 0.03), "norm_input": 5.0, "norm_high": 3.0, "norm_low": 4.0, "norm_sensitivity": 0.1,
        "norms_grid": "network", "locality_radius": (0.25, None), "locality_share": (0.05, None), "locality_rms": (0.0125, None),
        "head": "categorical", "method": "exact", "jacobian_products": 2,
        "verification": "agrees", "deviation": 0.015, "verified_by": "itself", "space": "native",
        "unit": "network input intensity", "input_sha256": "e" * 64, "weights_sha256": "f" * 64,
    }  # fmt: skip
    return CaseRow(name, **{**fields, **more})


def make_planes(affine: Array, shape: tuple[int, int, int], index: tuple[int, int, int], seed: int = 0) -> CasePlanes:
    """Planes of a volume in which the voxel `index` alone is sensitive."""
    generator = np.random.default_rng(seed)
    spot = np.zeros(shape)
    spot[index] = 3e-4
    values = {
        "source": generator.uniform(-1000, 400, shape),
        "high": generator.uniform(-0.3, 0.3, shape),
        "low": generator.uniform(-1, 1, shape),
        "sensitivity": spot,
    }
    return cut_planes([Layer(name, values[name], WINDOWS[name], MAP_UNITS[name]) for name in values], affine, index)


def make_large_planes(seed: int) -> CasePlanes:
    """Planes as large as planes get, of noise over soft shapes, which no codec makes small."""
    generator = np.random.default_rng(seed)
    sizes = {"axial": (256, 203), "coronal": (149, 203), "sagittal": (149, 256)}
    edges = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
    maps = []
    for content, unit in MAP_UNITS.items():
        planes = []
        for view, (rows, columns) in sizes.items():
            y, x = np.mgrid[:rows, :columns] / columns
            soft = 128 + 80 * np.sin(9 * x + seed) * np.cos(7 * y)
            values = np.clip(soft + generator.normal(0, 12, (rows, columns)), 0, 255).astype(np.uint8)
            planes.append(Plane(view, values, (0.9, 0.9), edges[view], 12.25))
        maps.append(PlaneMap(content, WINDOWS[content], unit, tuple(planes)))
    return CasePlanes((-20.5, 3.25, 12.25), tuple(maps))


def write_case_run(folder: Path, rows: list[CaseRow], planes: dict[str, CasePlanes], name: str = "chest") -> Path:
    """A folder as a run leaves it: records, planes, and empty files of the names that cases have."""
    write_table(folder, rows)
    write_run(folder, {"bundle": {"name": name, "version": "1.2.3"}, "options": {"energy": 0.99}})
    for case, found in planes.items():
        (folder / case).mkdir(parents=True, exist_ok=True)
        write_planes(folder / case / f"{case}_planes.npz", found)
        for ending in (".mrml", "_ifim.json", "_ifim_high.nii.gz", "_ifim_source.nii.gz", "_ifim_eigenvector-01.nii.gz"):
            (folder / case / f"{case}{ending}").touch()
    return folder


def make_slices(
    affine: Array, shape: tuple[int, ...], index: tuple[int, ...], seed: int = 0, photograph: bool = False, seen: Any = None
) -> tuple[CasePlanes, dict[str, Array]]:
    """Planes and slices of made-up maps, and the maps themselves; seen: where the network saw the image, None for all."""
    generator = np.random.default_rng(seed)
    spot = generator.uniform(1e-6, 2e-4, shape)
    spot[index] = 3e-4
    if seen is not None:
        spot = spot * seen
    values = {
        "source": np.rint(sum(1200.0 * (n + 1) * axis / 2**n for n, axis in enumerate(np.indices(shape) / max(shape))) - 1024),
        "high": generator.uniform(-0.3, 0.3, shape),
        "low": generator.uniform(-1, 1, shape),
        "sensitivity": spot,
        "eigenvector": generator.normal(0, 0.1, shape),
    }
    windows, units = {**WINDOWS, "eigenvector": (-0.25, 0.25)}, {**MAP_UNITS, "eigenvector": ""}
    layers = [
        Layer(name, values[name], windows[name], units[name], component=1 if name == "eigenvector" else None) for name in values
    ]
    drawn = [Layer(each.kind, each.values, each.window, each.unit) for each in layers if each.component is None]
    planes = cut_planes(drawn, affine, index, photograph)
    return replace(planes, stack=thin(layers, affine, index, spot, photograph)), values


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page(rows: list[CaseRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a module's own `rows`, the first twenty of which have pictures."""
    affine, shape, index = np.diag([0.9, 0.9, 4.0, 1.0]), (21, 34, 13), (5, 20, 9)
    planes = {row.case: make_planes(affine, shape, index, i) for i, row in enumerate(rows[:20]) if row.status != "failed"}
    return write_cohort(write_case_run(tmp_path_factory.mktemp("run"), rows, planes))


@pytest.fixture(scope="session")
def case_row() -> Callable[..., CaseRow]:
    """A row of the table of cases."""
    return make_row


@pytest.fixture(scope="session")
def case_planes() -> Callable[..., CasePlanes]:
    """Planes from an affine, a shape, the voxel of the only sensitive point, and a seed."""
    return make_planes


@pytest.fixture(scope="session")
def case_slices() -> Callable[..., tuple[CasePlanes, dict[str, Array]]]:
    """Planes with slices to scroll through, and the maps that they were cut from."""
    return make_slices


@pytest.fixture(scope="session")
def large_planes() -> Callable[[int], CasePlanes]:
    """Planes that weigh as much as planes can, from a seed."""
    return make_large_planes


@pytest.fixture(scope="session")
def case_run() -> Callable[..., Path]:
    """Writes a run from its folder, rows, planes by case, and the name of its bundle."""
    return write_case_run
