"""How often the pipeline opens an input: headers are read once, for checks, readers, sidecar and Parametric Maps alike."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import digests, read_sidecar, sidecar_path
from monai_ifim.run import pipeline
from monai_ifim.run.cases import find_cases
from monai_ifim.run.pipeline import decompose_cases
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import row_from_sidecar
from synthetic_series import ORIENTATIONS, Series, write

OPTIONS = CaseSettings("categorical", rank=1)
STEPS = [
    {"_target_": "LoadImaged", "keys": "image"},
    {"_target_": "EnsureChannelFirstd", "keys": "image"},
    {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.7, 2.4]},
    {"_target_": "ResizeWithPadOrCropd", "keys": "image", "spatial_size": [7, 6, 5]},
]
OURS, NIBABEL = 4, 3  # kind of file (twice), hash and header; MONAI's reader opens for the type, the header and the voxels

opened: Counter[str] | None = None  # an audit hook cannot be removed, only told to count nothing


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if opened is not None and event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        opened[os.fsdecode(arguments[0])] += 1


sys.addaudithook(_count)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts how often each path is opened inside the block, by Python."""
    global opened
    opened = Counter()
    try:
        yield opened
    finally:
        opened = None


@pytest.fixture(autouse=True)
def files_of_yesterday(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was written within the last seconds is read again to see that it did not change."""
    monkeypatch.setattr(digests, "SETTLED", -1.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path]) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("reading") / "bundle", steps=STEPS))


def test_a_nifti_file_is_opened_four_times_beside_its_reader(
    bundle: Bundle, write_scan: Callable[..., Path], oblique: Any, tmp_path: Path
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", (9, 8, 7), oblique)
    cases, settings = find_cases([scan]), RunSettings(tmp_path / "out", OPTIONS)
    with counting() as found:
        assert [row.status for row in decompose_cases(bundle, cases, settings)] == ["done"]
    assert 0 < found[str(scan)] <= OURS + NIBABEL
    with counting() as found:
        assert [row.status for row in decompose_cases(bundle, cases, settings)] == ["kept"]
    assert found[str(scan)] == 2  # kind of file and hash


@pytest.mark.parametrize("maps", [False, True], ids=["NIfTI alone", "Parametric Maps"])
@pytest.mark.parametrize("series", [None, "all"])
def test_a_dicom_file_is_opened_twice_and_one_of_them_again_for_its_patient(
    bundle: Bundle, tmp_path: Path, maps: bool, series: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ITK opens the files too, in C++, which Python does not see."""
    write(tmp_path / "in" / "first", Series(ORIENTATIONS["oblique"]).slices())
    cases = find_cases([tmp_path / "in"], series=series)
    parsed: Counter[str] = Counter()
    read = pydicom.dcmread

    def parse(file: Any, *arguments: Any, **options: Any) -> Any:
        if hasattr(file, "name"):  # a file, or its path; else what is checked in memory
            parsed[str(file if isinstance(file, Path) else file.name)] += 1
        return read(file, *arguments, **options)

    monkeypatch.setattr(pydicom, "dcmread", parse)
    with counting() as found:
        [row] = decompose_cases(bundle, cases, RunSettings(tmp_path / "out", CaseSettings.of(OPTIONS, {"dicom_pm": maps})))
    assert row.status == "done", row.reason
    files = sorted(str(path) for path in (tmp_path / "in" / "first").iterdir())
    assert sorted(found[file] for file in files) == [2] * (len(files) - maps) + [3] * maps
    assert sorted(parsed[file] for file in files) == [1] * (len(files) - maps) + [2] * maps


def test_the_row_is_that_of_the_sidecar_which_is_not_read_again(
    bundle: Bundle, write_scan: Callable[..., Path], oblique: Any, tmp_path: Path
) -> None:
    scan = write_scan(tmp_path / "scan.nii.gz", (9, 8, 7), oblique)
    with counting() as found:
        [row] = decompose_cases(bundle, find_cases([scan]), RunSettings(tmp_path / "out", OPTIONS))
    sidecar = sidecar_path(tmp_path / "out", row.case)
    assert found[str(sidecar)] == 0
    expected = row_from_sidecar(row.case, "done", read_sidecar(sidecar), row.seconds).of_listed("scan", "scan.nii.gz")
    assert row.stages is not None  # of this run alone
    assert replace(row, stages=None) == expected
    assert not hasattr(pipeline, "read_sidecar")


def test_the_volume_read_is_the_one_that_was_indexed(bundle: Bundle, tmp_path: Path) -> None:
    """Of two series in one folder, each case holds the values of its own."""
    first, second = Series(ORIENTATIONS["axial"]), Series(ORIENTATIONS["coronal"], slices=5)
    second.values = second.values // 3
    folder = write(tmp_path / "in", [*first.slices(), *second.slices()])
    cases = find_cases([folder], series="all")
    rows = {row.case: row for row in decompose_cases(bundle, cases, RunSettings(tmp_path / "out", OPTIONS))}
    assert {row.status for row in rows.values()} == {"done"}
    for case in cases:
        own = first if case.source.series == first.uid else second
        files = {file["kind"]: file for file in read_sidecar(sidecar_path(tmp_path / "out", case.name))["files"]}
        assert files["source"]["norm"] == pytest.approx(float(np.linalg.norm(own.values.astype(float))), rel=1e-6)
