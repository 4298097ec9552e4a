"""What tests of the engines share: small cohorts of scans, and what two result folders must have in common."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

Contents = dict[str, Any]
TIMES = ("seconds", "peak_memory_bytes", "verification", "sidecar_sha256")  # which case was verified depends on the process


@pytest.fixture(scope="session")
def contents_of() -> Callable[[Path], Contents]:
    """All case files below a result folder: hash of each, and content of each sidecar but for its time and memory."""

    def read(output: Path) -> Contents:
        found: Contents = {}
        for path in sorted(output.rglob("*")):
            if path.is_dir() or path.parent == output:
                continue
            if path.suffix == ".json":
                sidecar = json.loads(path.read_text(encoding="utf-8"))
                found[path.relative_to(output).as_posix()] = {key: sidecar[key] for key in sidecar if key not in TIMES}
            else:
                found[path.relative_to(output).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    return read


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Path], list[dict[str, str]]]:
    """Rows of cases.csv sorted by case, without seconds."""

    def read(output: Path) -> list[dict[str, str]]:
        with (output / "cases.csv").open(newline="", encoding="utf-8") as file:
            rows = [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]
        return sorted(rows, key=lambda row: row["case"])

    return read


@pytest.fixture
def write_cohort(write_scan: Callable[..., Path], turned: Callable[..., npt.NDArray[Any]]) -> Callable[..., Path]:
    """A folder of `count` scans of different sizes, places and values."""

    def write(folder: Path, count: int) -> Path:
        generator = np.random.default_rng(count)
        for i in range(count):
            shape = tuple(int(size) for size in generator.integers(6, 12, 3))
            affine = turned((1.1, 2.3, 3.1), tuple(generator.normal(size=3) * 0.3), flip=i % 2 == 0)
            write_scan(folder / f"s{i:03d}.nii.gz", shape, affine, shift=0.01 * i)
        return folder

    return write


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process computes with as many threads as a worker on one CPU: sums in another order differ in their last digit."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
