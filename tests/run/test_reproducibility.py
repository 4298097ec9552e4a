"""Same machine, same seed: the same bytes in every file but for the time fields, whoever runs the cases and in which order."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image
from typer.testing import CliRunner

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.io import identify_bundle
from monai_ifim.report.cohort.page import write_cohort as write_page
from monai_ifim.run.cases import Case, find_cases
from monai_ifim.run.cluster.driver import run_on_ray
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from synthetic_series import ORIENTATIONS, Series, write
from written_bytes import written_bytes

ROOT = Path(__file__).resolve().parents[2]
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "LAS", "labels": None},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 2.5, 3.0]},
    {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True},
    {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
]


@pytest.fixture
def root(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle", classes=6, steps=STEPS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def run(bundle: Bundle, cases: list[Case], output: Path, **settings: Any) -> Path:
    options = settings.pop("options", CaseSettings("categorical", rank=2, locality=True, seed=3))
    run_cases(bundle, cases, RunSettings(output, CaseSettings.of(options, settings), overwrite=True), lambda row: None)
    return output


@pytest.mark.parametrize(
    ("method", "space"),
    [("exact", "native"), ("adaptive", "native"), ("matrix_free", "native"), ("adaptive", "network"), ("matrix_free", "scanner")],
)
def test_twice_is_the_same_bytes(
    method: Any, space: Any, root: Path, write_cohort: Callable[..., Path], tmp_path: Path, one_thread: None
) -> None:
    scans = write_cohort(tmp_path / "in", 3)
    (scans / "broken.nii.gz").write_bytes(b"")
    options = CaseSettings("categorical", rank=2, method=method, tolerance=0.1, locality=True, seed=3)
    runs = []
    for name in ("first", "second"):
        output = run(load_bundle(root), find_cases([scans]), tmp_path / name, space=space, options=options, scene_bundle=True)
        runs.append(written_bytes(output, tmp_path / "scratch"))
    assert any(name.endswith(".mrb") for name in runs[0])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("budget", [None, "2MiB"])
def test_a_memory_budget_or_a_noise_level_changes_nothing_of_that(
    budget: str | None, root: Path, write_cohort: Callable[..., Path], tmp_path: Path, one_thread: None
) -> None:
    scans = write_cohort(tmp_path / "in", 2)
    options = CaseSettings("categorical", locality=True, memory_budget=budget, metric=0.25)
    outputs = [run(load_bundle(root), find_cases([scans]), tmp_path / name, options=options) for name in ("first", "second")]
    first, second = (written_bytes(output, tmp_path / "scratch") for output in outputs)
    assert first == second


def test_photographs_of_several_channels_are_the_same_bytes(
    make_bundle: Callable[..., Path], tmp_path: Path, one_thread: None
) -> None:
    (tmp_path / "in").mkdir()
    picture = np.random.default_rng(3).integers(1, 255, (31, 22, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "in" / "picture.png")
    bundle = load_bundle(make_bundle(tmp_path / "flat", dims=2, channels=3))
    first, second = (run(bundle, find_cases([tmp_path / "in"]), tmp_path / name) for name in ("first", "second"))
    assert written_bytes(first, tmp_path / "scratch") == written_bytes(second, tmp_path / "scratch")


@pytest.mark.slow
def test_cases_in_another_order_are_the_same_bytes_and_the_table_follows_the_order(
    root: Path, write_cohort: Callable[..., Path], tmp_path: Path, one_thread: None
) -> None:
    cases = find_cases([write_cohort(tmp_path / "in", 3)])
    first, second = run(load_bundle(root), cases, tmp_path / "first"), run(load_bundle(root), cases[::-1], tmp_path / "second")
    write_page(first)
    write_page(second)
    one, two = written_bytes(first, tmp_path / "scratch"), written_bytes(second, tmp_path / "scratch")
    tables = {"cases.csv", "cases.parquet", "index.html", "run.json"}  # the last states the hashes of the others
    assert {name: one[name] for name in one if name not in tables} == {name: two[name] for name in two if name not in tables}
    assert one["cases.csv"].splitlines()[1:] == two["cases.csv"].splitlines()[:0:-1]


def test_random_steps_of_a_preprocessing_draw_the_same_whatever_came_before(
    make_bundle: Callable[..., Path], write_cohort: Callable[..., Path], tmp_path: Path, one_thread: None
) -> None:
    noise = {"_target_": "RandGaussianNoised", "keys": "image", "prob": 1.0, "std": 0.5}
    root = make_bundle(tmp_path / "noisy", steps=[*STEPS, noise])
    cases = find_cases([write_cohort(tmp_path / "in", 3)])
    first, second = (
        run(load_bundle(root), cases, tmp_path / "first"),
        run(load_bundle(root), cases[1:][::-1], tmp_path / "second"),
    )
    one, two = written_bytes(first, tmp_path / "scratch"), written_bytes(second, tmp_path / "scratch")
    assert {name: one[name] for name in two if "/" in name} == {name: two[name] for name in two if "/" in name}


@pytest.mark.soak
@pytest.mark.parametrize("space", ["native", "scanner"])
def test_one_process_and_one_or_two_workers_write_the_same_bytes(
    space: Any, cluster: None, one_thread: None, root: Path, write_cohort: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With the same number of threads, which the sidecar states."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cases = find_cases([write_cohort(tmp_path / "in", 5)])
    case = CaseSettings("categorical", method="matrix_free", rank=2, tolerance=0.1, locality=True, space=space)
    settings = RunSettings(tmp_path / "none", case)
    local = run(load_bundle(root), cases, tmp_path / "none", options=case)
    expected = written_bytes(local, tmp_path / "scratch", engine=False)
    for workers in (1, 2):
        output = tmp_path / f"{workers}"
        run_on_ray(root, identify_bundle(root), cases, replace(settings, output=output), lambda row: None, workers)
        assert written_bytes(output, tmp_path / "scratch", engine=False) == expected


@pytest.mark.soak
def test_a_dicom_series_with_parametric_maps_is_the_same_bytes_in_another_process(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    """Names are hashed by another number there, and the clock and the time zone are others."""
    write(tmp_path / "in" / "series", Series(ORIENTATIONS["oblique"], slices=7).slices())
    words = ["decompose", "in", "--bundle", "bundle", "--head", "categorical", "--dicom-pm", "--mrb", "-o"]
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, [*words, "here"]).exit_code == 0
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "TZ": "Pacific/Auckland", "PYTHONHASHSEED": "6", "OMP_NUM_THREADS": "1"
    }  # fmt: skip
    command = [sys.executable, "-m", "monai_ifim.cli.main", *words, "there"]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    here, there = (written_bytes(tmp_path / name, tmp_path / "scratch") for name in ("here", "there"))
    assert sum(name.endswith(".dcm") for name in here) >= 4
    assert here == there
