"""The three stages: what overlaps, what is held in memory, and that the writer's inverse is the reader's."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.components import component_tensors, item_of_batch
from monai_ifim.adapt.saving import SaveIFIM
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core.decompose import decompose_with
from monai_ifim.run import pipeline
from monai_ifim.run.cases import Case, find_cases
from monai_ifim.run.pipeline import decompose_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import CaseRow

OPTIONS = CaseSettings("categorical", rank=1)
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Orientationd", "keys": "image", "axcodes": "PLI", "labels": None},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [2.0, 1.7, 2.4]},
    {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": True},
    {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [9, 8, 7]},
]


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path / "bundle", steps=STEPS))


@pytest.fixture
def cases(tmp_path: Path, write_cohort: Callable[..., Path]) -> list[Case]:
    return find_cases([write_cohort(tmp_path / "in", 6)])


def test_the_first_case_is_verified_and_named_in_the_records_of_the_others(
    bundle: Bundle, cases: list[Case], tmp_path: Path
) -> None:
    rows = list(decompose_cases(bundle, cases, RunSettings(tmp_path / "out", OPTIONS, batch_size=2)))
    assert {row.verification for row in rows} == {"agrees"}
    assert sorted(row.verified_by for row in rows) == sorted(["itself"] + [cases[0].name] * 5)
    assert all(0 <= row.deviation < 0.1 for row in rows if row.deviation is not None)


class Gate:
    """Runs a function, and says that it began and waits for leave before it ends."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.began, self.leave = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.began.release()
        assert self.leave.acquire(timeout=20)
        return self.function(*arguments, **options)


def test_one_case_is_read_and_another_written_while_a_third_is_computed(
    bundle: Bundle, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, compute, write = Gate(pipeline._load), Gate(pipeline.component_tensors), Gate(pipeline._save)
    monkeypatch.setattr(pipeline, "_load", read)
    monkeypatch.setattr(pipeline, "component_tensors", compute)
    monkeypatch.setattr(pipeline, "_save", write)
    with ThreadPoolExecutor(1) as caller:
        rows = caller.submit(list, decompose_cases(bundle, cases, RunSettings(tmp_path / "out", OPTIONS)))
        for gate in (read, read, compute):  # two cases read and the first computed: it goes to the writer
            gate.leave.release()
        for gate, times in ((read, 3), (compute, 2), (write, 1)):  # the third is being read, the second computed, the first
            for _ in range(times):  # written, all before any of the three may end
                assert gate.began.acquire(timeout=20)
        for gate in (read, compute, write):
            gate.leave.release(len(cases))
        assert {row.status for row in rows.result(timeout=60)} == {"done"}


def test_files_are_those_of_one_case_after_the_other(bundle: Bundle, cases: list[Case], tmp_path: Path) -> None:
    settings = RunSettings(tmp_path / "out", OPTIONS)
    assert {row.status for row in decompose_cases(bundle, cases, settings)} == {"done"}
    writer = SaveIFIM(tmp_path / "serial", space="native", preprocessing=bundle.preprocessing, bundle_root=bundle.root)
    for case in cases:
        image = bundle.preprocess(case.source.path)
        tensors = component_tensors(decompose_with(OPTIONS, bundle.network, image[None]), image[None], 0.0)
        writer(image, item_of_batch(tensors, 0, image), case.source, case.name)
        for path in (tmp_path / "serial" / case.name).glob("*.nii.gz"):
            mine, serial = nib.load(tmp_path / "out" / case.name / path.name), nib.load(path)
            np.testing.assert_array_equal(mine.get_fdata(), serial.get_fdata())
            np.testing.assert_array_equal(mine.affine, serial.affine)


def test_preprocessing_that_cannot_be_copied_still_leads_back(bundle: Bundle, cases: list[Case], tmp_path: Path) -> None:
    lock = threading.Lock()

    def locked(image: torch.Tensor) -> torch.Tensor:
        with lock:
            return image

    steps = [*bundle.preprocessing.transforms, Lambdad("image", func=locked, inv_func=locked)]
    stubborn = replace(bundle, steps=replace(bundle.steps, compose=Compose(steps)))
    with pytest.raises(TypeError):
        pipeline.deepcopy(Holder(lock))
    stubborn.preprocessing.holder = Holder(lock)  # a lock cannot be copied
    rows = list(decompose_cases(stubborn, cases, RunSettings(tmp_path / "out", OPTIONS)))
    assert [row.reason for row in rows] == [""] * len(cases)


class Holder:
    """Something with a lock in it."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock


def test_no_more_images_are_held_than_promised(
    bundle: Bundle, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, most, counting = 0, 0, threading.Lock()

    def count(change: int) -> None:
        nonlocal held, most
        with counting:
            held += change
            most = max(most, held)

    load, save = pipeline._load, pipeline._save

    def counted_load(*arguments: Any, **options: Any) -> Any:
        loaded = load(*arguments, **options)
        count(1)
        return loaded

    def counted_save(*arguments: Any) -> CaseRow:
        row = save(*arguments)
        count(-1)
        return row

    monkeypatch.setattr(pipeline, "_load", counted_load)
    monkeypatch.setattr(pipeline, "_save", counted_save)
    many = [Case(f"{case.name}-{i}", case.source) for i in range(4) for case in cases]
    assert len(list(decompose_cases(bundle, many, RunSettings(tmp_path / "out", OPTIONS)))) == len(many)
    assert 2 <= most <= pipeline.READ_AHEAD + pipeline.WRITE_BEHIND + 3  # and one in each stage's hands


def test_a_caller_that_stops_midway_leaves_whole_cases_and_no_thread(bundle: Bundle, cases: list[Case], tmp_path: Path) -> None:
    threads = threading.active_count()
    rows: Iterator[CaseRow] = decompose_cases(bundle, cases, RunSettings(tmp_path / "out", OPTIONS))
    first = next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads
    assert (tmp_path / "out" / first.case / f"{first.case}_ifim.json").is_file()
    assert not list((tmp_path / "out").rglob(".partial-*"))


def test_seconds_of_a_row_are_those_of_its_own_stages(
    bundle: Bundle, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that only the stages' own work moves: waiting in a queue costs a case nothing."""
    clock = threading.local()
    monkeypatch.setattr(pipeline.time, "perf_counter", lambda: getattr(clock, "now", 0.0))
    for name, cost in (("read_image", 3.0), ("component_tensors", 5.0), ("row_from_sidecar", 0.0)):
        function = getattr(pipeline, name)

        def spend(*arguments: Any, function: Any = function, cost: float = cost) -> Any:
            clock.now = getattr(clock, "now", 0.0) + cost
            return function(*arguments)

        monkeypatch.setattr(pipeline, name, spend)
    rows = list(decompose_cases(bundle, cases, RunSettings(tmp_path / "out", OPTIONS)))
    assert [row.seconds for row in rows] == [8.0] * len(cases)
