"""Limits on a case in a run: it fails with the option that lifts the limit, and the others are made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad
from torch import Tensor, nn

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import ConvergenceWarning
from monai_ifim.io.limits import NO_LIMITS, Limits
from monai_ifim.run import case_clock
from monai_ifim.run.case_clock import Stage
from monai_ifim.run.cases import Case, find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

OPTIONS = CaseSettings("categorical", rank=1, verify="never")
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "PLI", "labels": None},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 1.7, 2.4]},
    {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [9, 8, 7]},
]


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path / "bundle", steps=STEPS))


@pytest.fixture
def cases(tmp_path: Path, write_cohort: Callable[..., Path]) -> list[Case]:
    return find_cases([write_cohort(tmp_path / "in", 4)])


def run(bundle: Bundle, cases: list[Case], output: Path, limits: Limits, **settings: Any) -> list[CaseRow]:
    return run_cases(bundle, cases, RunSettings(output, OPTIONS, limits=limits, **settings), lambda row: None)


def failed(rows: list[CaseRow]) -> dict[str, str]:
    assert all("\n" not in row.reason for row in rows)
    return {row.case: row.reason for row in rows if row.status == "failed"}


def with_step(bundle: Bundle, function: Callable[[Tensor], Tensor]) -> Bundle:
    steps = [*bundle.preprocessing.transforms, Lambdad("image", func=function, inv_func=lambda image: image)]
    return replace(bundle, steps=replace(bundle.steps, compose=Compose(steps)))


def test_image_that_is_too_large_fails_alone_and_the_named_option_lifts_the_limit(
    bundle: Bundle, cases: list[Case], tmp_path: Path
) -> None:
    nib.save(nib.Nifti1Image(np.zeros((40, 40, 40), np.uint8), np.diag([9, 9, 9, 1])), cases[1].source.path)
    reasons = failed(run(bundle, cases, tmp_path / "out", Limits(voxels=50_000)))
    assert list(reasons) == ["s001"]
    assert "s001.nii.gz: 64000 voxels, more than the limit of 50000" in reasons["s001"]
    assert "--max-voxels 64000 (or 0 for no limit)" in reasons["s001"]
    lifted = run(bundle, cases, tmp_path / "out", Limits(voxels=0))
    assert [row.status for row in lifted] == ["kept", "done", "kept", "kept"]


@pytest.mark.parametrize("space", ["native", "scanner"])
def test_voxel_size_that_makes_preprocessing_fill_the_memory_is_refused_before(
    bundle: Bundle, cases: list[Case], tmp_path: Path, space: str
) -> None:
    """A millionth of what the file claims would fit; the step is not begun."""
    nib.save(nib.Nifti1Image(np.zeros((9, 9, 9), np.uint8), np.diag([5e3, 5e3, 5e3, 1])), cases[2].source.path)
    options = CaseSettings.of(OPTIONS, {"space": space})
    rows = run_cases(bundle, cases, RunSettings(tmp_path / "out", options), lambda row: None)
    reasons = failed(rows)
    assert list(reasons) == ["s002"]
    assert "voxels when resampled by the bundle's preprocessing, more than the limit of 536870912" in reasons["s002"]


def test_image_that_grows_in_any_other_way_fails_when_it_is_prepared(bundle: Bundle, cases: list[Case], tmp_path: Path) -> None:
    def grow(image: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(image[None], scale_factor=4.0)[0]

    reasons = failed(run(with_step(bundle, grow), cases, tmp_path / "out", Limits(voxels=9 * 8 * 7 * 10)))
    assert len(reasons) == 4
    assert all(f"{9 * 8 * 7 * 64} voxels as prepared for the network" in reason for reason in reasons.values())


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opened at the end, for the threads that wait at it."""
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.slow
def test_reader_that_hangs_costs_its_case_alone(bundle: Bundle, cases: list[Case], tmp_path: Path, gate: threading.Event) -> None:
    hung: list[str] = []

    def hang(image: Tensor) -> Tensor:
        if "s001" in str(image.meta["filename_or_obj"]):  # type: ignore[attr-defined]
            hung.append(threading.current_thread().name)
            gate.wait(60)
        return image

    run(bundle, cases[:1], tmp_path / "warm", NO_LIMITS)  # what is imported with the first case takes its time
    rows = run(with_step(bundle, hang), cases, tmp_path / "out", Limits(seconds=3))
    assert [row.status for row in rows] == ["done", "failed", "done", "done"]
    assert "s001.nii.gz: reading it takes longer than the limit of 3 s" in rows[1].reason
    assert "--max-seconds" in rows[1].reason
    [thread] = [each for each in threading.enumerate() if each.name == hung[0]]
    assert thread.daemon  # the program can end


class Clock:
    """Stands for the module `time` of the clock of a case."""

    perf_counter = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Slow(nn.Module):
    """A network whose backward pass takes ten thousand seconds for an image of large values."""

    def __init__(self, network: nn.Module, clock: Clock) -> None:
        super().__init__()
        self.network, self.clock = network, clock
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.network(image)
        if out.requires_grad and float(image.detach().max()) > 90:
            out.register_hook(self.wait)
        return out

    def wait(self, gradient: Tensor) -> None:
        self.clock.now += 10_000


@pytest.mark.parametrize(("space", "batch_size"), [("network", 1), ("network", 4), ("scanner", 1)])
def test_case_that_computes_too_long_fails_alone(
    bundle: Bundle, cases: list[Case], tmp_path: Path, batch_size: int, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nib.save(nib.Nifti1Image(np.full((9, 8, 7), 100, np.float32), np.diag([2.0, 2, 2, 1])), cases[3].source.path)
    clock = Clock()
    monkeypatch.setattr(case_clock, "time", clock)
    options = CaseSettings.of(OPTIONS, {"space": space})
    settings = RunSettings(tmp_path / "out", options, batch_size, limits=Limits(seconds=2000))
    rows = run_cases(replace(bundle, network=Slow(bundle.network, clock)), cases, settings, lambda row: None)
    reasons = failed(rows)
    assert list(reasons) == ["s003"]
    assert "s003.nii.gz: computing (after 1 products) takes longer than the limit of 2000 s" in reasons["s003"]


class Segmentation(nn.Module):
    """Three classes at every voxel; a backward pass takes ten seconds."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 3, 3, padding=1))
        self.clock = clock
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.layers(image / 50)
        if out.requires_grad:
            out.register_hook(self.wait)
        return out

    def wait(self, gradient: Tensor) -> None:
        self.clock.now += 10


@pytest.mark.parametrize("space", ["network", "scanner"])
def test_iteration_that_takes_too_long_ends_with_its_best_components(
    bundle: Bundle, cases: list[Case], tmp_path: Path, space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that only the end of the iteration keeps, and a later run with more time makes the case again."""
    clock, told = Clock(), list[Stage | None]()
    monkeypatch.setattr(case_clock, "time", clock)
    asked = CaseSettings("voxelwise", rank=3, tolerance=1e-9, probes=2, verify="never", locality=False, space=space)
    segmenting = replace(bundle, network=Segmentation(clock))

    def rows(seconds: int) -> list[CaseRow]:
        settings = RunSettings(tmp_path / "out", asked, limits=Limits(seconds=seconds))
        return run_cases(segmenting, cases[:1], settings, lambda row: None, activity=told.append)

    with pytest.warns(ConvergenceWarning, match="asked to stop"):
        (row,) = rows(150)
    assert clock.now <= 150
    assert (row.status, row.convergence, row.stopped, row.rank) == ("done", "not converged", "request", 3)
    assert row.residual is not None
    assert row.residual > 1e-9
    assert any(stage is not None and stage.left is not None and stage.iteration is not None for stage in told)
    assert "products, about" in "".join(map(str, told))
    assert told[-1] is None
    (again,) = rows(100_000)
    assert (again.status, again.convergence, again.stopped) == ("done", "converged", "")
    assert [one.status for one in rows(150)] == ["kept"]
    reasons = failed(run_cases(segmenting, cases[1:2], RunSettings(tmp_path / "out", asked, limits=Limits(seconds=5)), print))
    assert "takes longer than the limit of 5 s" in reasons["s001"]


def test_no_limit_is_no_limit(bundle: Bundle, cases: list[Case], tmp_path: Path) -> None:
    assert not failed(run(bundle, cases, tmp_path / "out", NO_LIMITS))
