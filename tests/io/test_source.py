"""Names, hashes, frames and refusals of inputs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom.header import is_dicom

Array = npt.NDArray[Any]


def digits(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:8]


@pytest.fixture
def series_4d(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> Path:
    return write_scan(tmp_path / "perfusion.nii.gz", (5, 4, 6, 3), oblique)


@pytest.fixture
def ct_slice() -> pydicom.Dataset:
    return pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("scan.nii.gz", "scan"),
        ("SCAN.NII.GZ", "SCAN"),
        ("a.b.nii", "a.b"),
        ("slice.dcm", "slice"),
        ("I10", "I10"),
        ("1.2.840.113619.2", "1.2.840.113619.2"),
        ("head of patient.nrrd", "head_of_patient"),
        ("Schädel/../Schädel.mha", "Schadel-" + digits("Schädel")),
        ("頭部.nii.gz", "case-" + digits("頭部")),
        ("a;rm -rf $HOME.png", "a_rm_-rf_HOME"),
        (".nii.gz", "nii.gz"),
    ],
)
def test_names_are_safe_base_names_without_suffix(file: str, name: str) -> None:
    assert Source(Path(file)).name == name


def test_a_frame_is_part_of_the_name() -> None:
    assert Source(Path("x/perfusion.nii.gz"), 7).name == "perfusion_frame-007"


def test_a_4d_file_without_frame_is_refused_naming_the_option(series_4d: Path) -> None:
    with pytest.raises(InputError, match=r"3 volumes; choose one with --frame N, N from 0 to 2"):
        OpenedSource(Source(series_4d)).check(channels=1)


def test_a_4d_file_with_as_many_volumes_as_channels_is_one_image(series_4d: Path) -> None:
    OpenedSource(Source(series_4d)).check(channels=3)
    assert OpenedSource(Source(series_4d)).frames == 3


@pytest.mark.parametrize("frame", [-1, 3, 99])
def test_a_frame_out_of_range_is_refused_with_the_count(frame: int, series_4d: Path) -> None:
    with pytest.raises(InputError, match=f"no frame {frame}; it has 3"):
        OpenedSource(Source(series_4d, frame)).check(channels=1)


@pytest.mark.parametrize("frame", [0, 2])
def test_an_extracted_frame_is_nibabels_slice_at_nibabels_place(frame: int, series_4d: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    found = nib.load(OpenedSource(Source(series_4d, frame)).readable_path(tmp_path / "scratch"))
    source = nib.load(series_4d)
    np.testing.assert_array_equal(found.get_fdata(), source.get_fdata()[..., frame])
    np.testing.assert_array_equal(found.affine, source.affine)


def test_a_scaled_frame_keeps_its_values(tmp_path: Path, oblique: Array) -> None:
    image = nib.Nifti1Image(np.arange(5 * 4 * 3 * 2, dtype=np.int16).reshape(5, 4, 3, 2), oblique)
    image.header.set_slope_inter(0.25, -7.5)
    nib.save(image, tmp_path / "scaled.nii")
    (tmp_path / "scratch").mkdir()
    found = nib.load(OpenedSource(Source(tmp_path / "scaled.nii", 1)).readable_path(tmp_path / "scratch"))
    np.testing.assert_allclose(found.get_fdata(), nib.load(tmp_path / "scaled.nii").get_fdata()[..., 1], rtol=0, atol=1e-6)


def test_a_file_of_one_volume_needs_no_frame_and_stays_where_it_is(
    tmp_path: Path, write_scan: Callable[..., Path], oblique: Array
) -> None:
    path = write_scan(tmp_path / "scan.nii.gz", (5, 4, 6), oblique)
    OpenedSource(Source(path)).check(channels=1)
    assert OpenedSource(Source(path)).readable_path(tmp_path) == path


def test_an_empty_a_missing_and_a_false_nifti_file_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "false.nii.gz").write_bytes(b"not gzip at all")
    for name, reason in {"empty": "is empty", "false": "not a readable NIfTI", "missing": "no such file"}.items():
        with pytest.raises(InputError, match=rf"{name}\.nii\.gz.*{reason}"):
            OpenedSource(Source(tmp_path / f"{name}.nii.gz")).check(channels=1)


def test_dicom_is_told_by_content_not_by_suffix(tmp_path: Path) -> None:
    shutil.copy(str(get_testdata_file("CT_small.dcm", download=False)), tmp_path / "IM000001")
    (tmp_path / "note.dcm").write_text("no DICOM")
    assert is_dicom(tmp_path / "IM000001")
    assert not is_dicom(tmp_path / "note.dcm")
    assert not is_dicom(tmp_path)


def test_a_folder_of_two_series_is_refused_and_of_one_accepted(tmp_path: Path, ct_slice: pydicom.Dataset) -> None:
    ct_slice.save_as(tmp_path / "first")
    OpenedSource(Source(tmp_path)).check(channels=1)
    ct_slice.SeriesInstanceUID, ct_slice.SOPInstanceUID = generate_uid(), generate_uid()
    ct_slice.file_meta.MediaStorageSOPInstanceUID = ct_slice.SOPInstanceUID
    ct_slice.save_as(tmp_path / "second")
    with pytest.raises(InputError, match=r"2 volumes in one folder; choose with --series UID.*1 slice.*1 slice"):
        OpenedSource(Source(tmp_path)).check(channels=1)


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("nothing")
    with pytest.raises(InputError, match="no DICOM file"):
        OpenedSource(Source(tmp_path)).check(channels=1)


def test_a_real_series_of_files_without_suffix_is_accepted(real_data: Path) -> None:
    OpenedSource(Source(real_data / "dicom" / "ct_plain")).check(channels=1)
