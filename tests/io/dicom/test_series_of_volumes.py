"""Series of several volumes, chosen by --frame or --series and read as dcm2niix reads them; repeated files are taken once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from monai.transforms import LoadImage
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source
from monai_ifim.io.dicom.reader import known_volume
from monai_ifim.run.cases import find_cases
from synthetic_series import ORIENTATIONS, Series, write

Array = npt.NDArray[Any]
# folder: slices of a volume, volumes, what tells them apart, and which of them are compared
REAL = {
    "ge_fmri": (15, 10, ("Instance Number",), (9,)),
    "toshiba_dti": (8, 3, ("b-value", "Diffusion Gradient Orientation"), (1, 2)),
}


def read(path: Path, **options: Any) -> Any:
    loader = LoadImage(image_only=True)
    loader.register(DicomReader(**options))
    return loader(str(path))


def read_source(source: Source, scratch: Path) -> Any:
    """As a run reads it."""
    opened = OpenedSource(source)
    opened.check(channels=1)
    path = opened.readable_path(scratch)
    with known_volume(path, opened.readable_volume):
        return read(path)


def check_alike(image: Any, theirs: Array, affine: Array) -> None:
    """Every voxel of theirs is in the image, at the same place; their axes may differ."""
    assert image.numel() == theirs.size
    world = nib.affines.apply_affine(affine, np.indices(theirs.shape).reshape(3, -1).T)
    found = np.rint(nib.affines.apply_affine(np.linalg.inv(image.affine.numpy()), world)).astype(int)
    np.testing.assert_allclose(nib.affines.apply_affine(image.affine.numpy(), found), world, rtol=0, atol=1e-3)
    np.testing.assert_allclose(image.numpy()[tuple(found.T)], theirs.reshape(-1), rtol=1e-6)


def by_dcm2niix(folder: Path, scratch: Path) -> Any:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    scratch.mkdir()
    command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "theirs", "-o", str(scratch), str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    return nib.load(scratch / "theirs.nii")


@pytest.mark.parametrize("name", REAL)
def test_real_series_are_the_volumes_that_dcm2niix_makes_in_its_order(name: str, real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "dicom" / name
    slices, count, differ, compared = REAL[name]
    said = (
        f"{name}: a series of {count} volumes of {slices} slices that differ in {' and '.join(differ)}; choose one with --frame "
        f"N, N from 0 to {count - 1}, or --series all. It holds MR, 64 x 64, {slices} slices, .*#1 to #{count}."
    )
    with pytest.raises(InputError, match=said):
        OpenedSource(Source(folder)).check(channels=1)
    theirs = by_dcm2niix(folder, tmp_path / "theirs")
    assert theirs.shape == (64, 64, slices, count)
    for number in compared:
        check_alike(read_source(Source(folder, frame=number), tmp_path), np.asarray(theirs.dataobj)[..., number], theirs.affine)


@pytest.fixture
def three_times(small_cases: Path) -> Path:
    return small_cases / "dicom" / "fmri_by_instance_number"


def test_volumes_are_chosen_by_frame_by_series_or_by_both(three_times: Path, tmp_path: Path) -> None:
    by_frame = [find_cases([three_times], frame=number)[0] for number in range(3)]
    assert [case.name for case in by_frame] == [f"fmri_by_instance_number_frame-{number:03d}" for number in range(3)]
    [*by_series] = find_cases([three_times], series="all")
    uid = pydicom.dcmread(three_times / "IM000", stop_before_pixels=True).SeriesInstanceUID
    assert [case.source.series for case in by_series] == [f"{uid}#{k}" for k in (1, 2, 3)]
    [by_both] = find_cases([three_times], series=uid, frame=1)
    (tmp_path / "scratch").mkdir()
    images = [read_source(case.source, tmp_path / "scratch") for case in by_frame]
    for number, image in enumerate(images):
        chosen = read_source(by_series[number].source, tmp_path / "scratch")
        np.testing.assert_array_equal(chosen, image)
        np.testing.assert_array_equal(read(three_times, frame=number), image)
        numbers = [int(header.InstanceNumber) for header in OpenedSource(by_frame[number].source).headers]
        assert sorted(numbers) == list(range(1 + 8 * number, 9 + 8 * number))
    np.testing.assert_array_equal(read_source(by_both.source, tmp_path / "scratch"), images[1])
    assert len({OpenedSource(case.source).digest for case in by_frame}) == 3
    with pytest.raises(InputError, match="there is no frame 3; a series of 3 volumes of 8 slices that differ in Instance Number"):
        OpenedSource(Source(three_times, frame=3)).check(channels=1)


def test_what_told_volumes_apart_is_recorded_and_the_order_of_numbers_alone_is_a_warning(three_times: Path) -> None:
    reading = OpenedSource(Source(three_times, frame=2)).reading
    assert reading.described().items() >= {"volume": 2, "volumes": 3, "volumes_differ_in": ("Instance Number",)}.items()
    assert reading.words() == ("The 3 volumes of the series were told apart by the order of Instance Number alone.",)


def test_repetitions_of_a_weighting_are_named_as_such(tmp_path: Path) -> None:
    slices = [image for _ in range(3) for image in Series(ORIENTATIONS["axial"], slices=2).slices()]
    for k, image in enumerate(slices):
        image.SeriesInstanceUID, image.StudyInstanceUID = slices[0].SeriesInstanceUID, slices[0].StudyInstanceUID
        image.DiffusionBValue, image.InstanceNumber = (0.0, 1000.0, 0.0)[k // 2], k + 1
        del image.AcquisitionNumber, image.AcquisitionTime, image.ContentTime
    folder = write(tmp_path / "dwi", slices)
    assert OpenedSource(Source(folder, frame=2)).reading.words() == (
        "Volumes of the series that agree in b-value were told apart by the order of Instance Number alone.",
    )
    with pytest.raises(InputError, match="3 volumes of 2 slices that differ in b-value and Instance Number; choose"):
        OpenedSource(Source(folder)).check(channels=1)


def test_a_frame_is_asked_of_several_volumes_only(tmp_path: Path) -> None:
    write(tmp_path / "in" / "one", Series(ORIENTATIONS["axial"]).slices())
    series = Series(ORIENTATIONS["axial"])
    slices = [*series.slices(), *series.slices()]
    for k, image in enumerate(slices):
        image.EchoNumbers = 1 + k // 6
    write(tmp_path / "in" / "two", slices)
    frames = {case.source.path.name: case.source.frame for case in find_cases([tmp_path / "in"], frame=1)}
    assert frames == {"one": None, "two": 1}


def test_order_of_the_volumes_is_that_of_the_series_whatever_the_files_are_called(tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["oblique"])
    folder = tmp_path / "times"
    folder.mkdir()
    for time in range(12):
        for k, image in enumerate(series.slices()[:2]):
            image.SOPInstanceUID = generate_uid()
            image.TemporalPositionIdentifier, image.PixelData = time + 1, (series.values[:, :, k].T + time).tobytes()
            image.save_as(folder / f"{(7 * time) % 12}-{1 - k}")  # such as "10" before "2"
    for time in (3, 11):
        assert float((read(folder, frame=time).numpy() - read(folder, frame=0).numpy()).mean()) == time


ONE_VOLUME = {"orientation_1e-6": 20, "pixel_spacing_1e-7": 20}


@pytest.mark.parametrize("name", ONE_VOLUME)
def test_noise_in_the_last_digits_leaves_one_volume(name: str, small_cases: Path, tmp_path: Path) -> None:
    folder = small_cases / "dicom" / name
    theirs = by_dcm2niix(folder, tmp_path / "theirs")
    check_alike(read_source(Source(folder), tmp_path), np.asarray(theirs.dataobj), theirs.affine)


def test_files_that_are_there_twice_are_taken_once(small_cases: Path, tmp_path: Path) -> None:
    folder = small_cases / "dicom" / "same_files_twice"
    image = read_source(Source(folder), tmp_path)
    (tmp_path / "once").mkdir()
    for file in folder.iterdir():
        if not file.name.endswith("_copy"):
            shutil.copy(file, tmp_path / "once")
    np.testing.assert_array_equal(image, read(tmp_path / "once"))
    np.testing.assert_array_equal(image.affine, read(tmp_path / "once").affine)
    reading = OpenedSource(Source(folder)).reading
    assert reading.repeated_instances == 20
    assert reading.words() == ("Files that repeat another one of the same SOP Instance UID were left out: 20.",)
    assert OpenedSource(Source(tmp_path / "once")).reading.repeated_instances is None


def _routed(image: Dataset) -> None:
    image.RetrieveAETitle = "ELSEWHERE"


def _moved(image: Dataset) -> None:
    image.ImagePositionPatient = [1, 2, 3]


def _scaled(image: Dataset) -> None:
    image.RescaleIntercept = 7


def _repainted(image: Dataset) -> None:
    image.PixelData = bytes(len(image.PixelData))


def _in_another_syntax(image: Dataset) -> None:
    other = {ImplicitVRLittleEndian: ExplicitVRLittleEndian, ExplicitVRLittleEndian: ImplicitVRLittleEndian}
    image.file_meta.TransferSyntaxUID = other[image.file_meta.TransferSyntaxUID]


@pytest.mark.parametrize("change", [_routed, _moved, _scaled, _repainted, _in_another_syntax])
def test_two_files_of_one_instance_must_show_the_same(change: Callable[[Dataset], None], tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["axial"])
    folder = write(tmp_path / "series", series.slices())
    image = pydicom.dcmread(folder / "IM002")
    change(image)
    kept = image.file_meta.TransferSyntaxUID
    pydicom.dcmwrite(folder / "again", image, implicit_vr=kept == ImplicitVRLittleEndian, little_endian=True)
    if change is _routed:
        assert OpenedSource(Source(folder)).reading.repeated_instances == 1
        assert read(folder).shape == series.values.shape
        return
    said = "IM002 and again: two files of one SOP Instance UID, which differ in places, sizes, pixels or transfer syntax"
    with pytest.raises(InputError, match=said):
        OpenedSource(Source(folder)).check(channels=1)
    with pytest.raises(InputError, match=said):
        read(folder)
    (folder / "again").unlink()  # the cure
    OpenedSource(Source(folder)).check(channels=1)


def test_a_repeated_file_of_another_patient_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices())
    image = pydicom.dcmread(folder / "IM002")
    image.PatientID = "another"
    image.save_as(folder / "again")
    with pytest.raises(InputError, match="they do not agree in Patient ID"):
        OpenedSource(Source(folder)).check(channels=1)
