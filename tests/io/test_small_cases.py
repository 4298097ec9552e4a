"""Small inputs that went wrong once: each row of their table gives the right answer, as `decompose` and as LoadImage alone read.

The truth is computed here from the headers by pydicom, or is what nibabel gives. tests/benchmarks/test_verdicts.py compares the
same folders, and the real series of the table, with dcm2niix.
"""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from monai.transforms import Compose, LoadImage
from pydicom.pixels.processing import apply_modality_lut

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source
from monai_ifim.io.dicom.reader import known_volume, register_dicom_reader
from monai_ifim.io.reading import Reading
from monai_ifim.run.cases import find_cases

Array = npt.NDArray[Any]
READ = (  # folders that hold one volume
    "jitter_0.02mm", "orientation_1e-6", "pixel_spacing_1e-7", "spacing_between_slices_0", "dirfile", "same_files_twice",
    "monochrome1", "modality_lut",
)  # fmt: skip
OTHERS = {"mosaic", "gaps_drift", "fmri_by_instance_number", "dx_nominal"}
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Truth(NamedTuple):
    """Values [column, row, slice] by height along the normal, voxel -> RAS mm, and the slices' places, LPS mm."""

    values: Array
    affine: Array
    places: Array


def truth(files: list[Path]) -> Truth:
    """The volume of single slices by their headers (PS3.3 C.7.6.2.1.1), each instance taken once."""
    headers = {header.SOPInstanceUID: header for header in map(pydicom.dcmread, files)}
    images = [header for header in headers.values() if "PixelData" in header]
    columns, rows = np.array(images[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    images.sort(key=lambda image: float(np.array(image.ImagePositionPatient, dtype=float) @ np.cross(columns, rows)))
    places = np.array([image.ImagePositionPatient for image in images], dtype=float)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = columns * images[0].PixelSpacing[1], rows * images[0].PixelSpacing[0]
    affine[:3, 2], affine[:3, 3] = (places[-1] - places[0]) / (len(places) - 1), places[0]
    values = np.stack([apply_modality_lut(image.pixel_array, image).T for image in images], axis=-1)
    return Truth(values, RAS_FROM_LPS @ affine, places)


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name != "DIRFILE"]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Source], tuple[Any, Reading]]:
    """The image of a source as `decompose` reads it, and what was decided."""

    def reading(source: Source) -> tuple[Any, Reading]:
        opened = OpenedSource(source)
        opened.check(channels=None)
        path = opened.readable_path(tmp_path)
        loader = Compose([LoadImage(image_only=True)])
        register_dicom_reader(loader)
        with known_volume(path, opened.readable_volume):
            return loader(str(path)), opened.reading

    return reading


def alone(folder: Path) -> Any:
    """The image in a folder as somebody else's LoadImage reads it."""
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    return loader(str(folder))


def only_source(folder: Path, **options: Any) -> Source:
    (case,) = find_cases([folder], **options)
    return case.source


def assert_alike(image: Any, values: Array, affine: Array, rounding: float = 1e-3) -> None:
    """Each voxel lies on one of the other's, within 1e-3 mm, and has its value, within `rounding`."""
    affine_of_image = np.asarray(image.affine, dtype=float)
    assert sorted(image.shape) == sorted(values.shape)
    voxels = np.indices(image.shape).reshape(3, -1).T
    world = nib.affines.apply_affine(affine_of_image, voxels)
    there = np.rint(nib.affines.apply_affine(np.linalg.inv(affine), world)).astype(int)
    np.testing.assert_allclose(nib.affines.apply_affine(affine, there), world, rtol=0, atol=1e-3)
    np.testing.assert_allclose(np.asarray(image)[tuple(voxels.T)], values[tuple(there.T)], rtol=1e-6, atol=rounding)


def test_every_row_of_the_table_of_folders_is_tested(small_cases: Path) -> None:
    table = (small_cases / "README.md").read_text(encoding="utf-8").partition("## dicom/")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, flags=re.MULTILINE)) == {*READ, *OTHERS}


@pytest.mark.parametrize("name", READ)
def test_folder_is_one_volume_at_the_places_of_its_headers(
    name: str, small_cases: Path, read: Callable[[Source], tuple[Any, Reading]]
) -> None:
    folder = small_cases / "dicom" / name
    expected = truth(files_of(folder))
    image, _ = read(only_source(folder, series="all"))
    assert_alike(image, expected.values, expected.affine)
    again = alone(folder)
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(again.affine, image.affine)


def test_jitter_leaves_each_slice_within_the_rule(small_cases: Path, read: Callable[[Source], tuple[Any, Reading]]) -> None:
    folder = small_cases / "dicom" / "jitter_0.02mm"
    places = truth(files_of(folder)).places
    image, reading = read(only_source(folder))
    steps = np.arange(len(places))[:, None] * np.asarray(image.affine)[:3, 2]
    ours = (np.asarray(image.affine)[:3, 3] + steps) * [-1, -1, 1]
    largest = min(np.linalg.norm(ours - each, axis=1).max() for each in (places, places[::-1]))
    assert 0.001 < largest < 0.1
    assert reading.largest_distance_mm == pytest.approx(largest, abs=1e-3)


def test_identical_instances_are_taken_once_and_it_is_said(
    small_cases: Path, read: Callable[[Source], tuple[Any, Reading]]
) -> None:
    _, reading = read(only_source(small_cases / "dicom" / "same_files_twice"))
    assert reading.repeated_instances == 20
    assert "20" in " ".join(reading.words())


def test_mosaic_that_does_not_say_how_it_is_made_is_refused_with_the_cure(small_cases: Path) -> None:
    folder = small_cases / "dicom" / "mosaic"
    with pytest.raises(InputError, match=r"(?i)mosaic.*dcm2niix"):
        OpenedSource(only_source(folder)).check(channels=None)
    with pytest.raises(InputError, match=r"(?i)mosaic.*dcm2niix"):
        alone(folder)


def test_drifting_gaps_are_refused_and_resampled_where_asked(
    small_cases: Path, read: Callable[[Source], tuple[Any, Reading]], tmp_path: Path
) -> None:
    folder = tmp_path / "gaps_drift"
    folder.mkdir()
    files = sorted(files_of(small_cases / "dicom" / "gaps_drift"), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    for file in files[::5]:  # these drift as far as all
        (folder / file.name).symlink_to(file)
    source = only_source(folder)
    with pytest.raises(InputError, match="--fix-geometry"):
        OpenedSource(source).check(channels=None)
    with pytest.raises(InputError, match="--fix-geometry"):
        alone(folder)
    expected = truth(files_of(folder))
    image, reading = read(replace(source, fix_geometry=True))
    normal = np.cross(*np.array(pydicom.dcmread(files_of(folder)[0]).ImageOrientationPatient, dtype=float).reshape(2, 3))
    heights = expected.places @ normal
    step = float(np.linalg.norm(np.asarray(image.affine)[:3, 2]))
    assert np.diff(heights).min() - 1e-5 <= step <= np.diff(heights).max() + 1e-5
    even = heights[0] + step * np.arange(image.shape[2])
    assert 0 <= heights[-1] - even[-1] + 1e-6 < step
    rows = expected.values.reshape(-1, len(heights))
    between = np.stack([np.interp(even, heights, row) for row in rows]).reshape(*expected.values.shape[:2], -1)
    affine = expected.affine.copy()
    affine[:3, 2] = normal * step * [-1, -1, 1]
    assert_alike(image, between, affine, rounding=0.1)  # of places in float32, where values change by a thousand in a millimetre
    offsets = np.abs(heights - np.linspace(heights[0], heights[-1], len(heights)))
    assert reading.largest_distance_mm == pytest.approx(offsets.max(), abs=1e-3)
    assert offsets.max() > 1


def test_times_that_instance_numbers_tell_apart_are_volumes(
    small_cases: Path, read: Callable[[Source], tuple[Any, Reading]]
) -> None:
    folder = small_cases / "dicom" / "fmri_by_instance_number"
    with pytest.raises(InputError, match=r"3 volumes of 8 slices.*--frame"):
        OpenedSource(only_source(folder)).check(channels=None)
    by_number = sorted(files_of(folder), key=lambda path: int(pydicom.dcmread(path).InstanceNumber))
    cases = find_cases([folder], series="all")
    assert len(cases) == 3
    for k, case in enumerate(cases):
        expected = truth(by_number[8 * k : 8 * k + 8])
        for source in (case.source, only_source(folder, frame=k)):
            image, _ = read(source)
            assert_alike(image, expected.values, expected.affine)


def test_digitised_film_has_the_spacing_that_it_was_scanned_with(
    small_cases: Path, read: Callable[[Source], tuple[Any, Reading]]
) -> None:
    folder = small_cases / "dicom" / "dx_nominal"
    image, reading = read(only_source(folder))
    header = pydicom.dcmread(folder / "IM1")
    rows, columns = header.NominalScannedPixelSpacing
    assert rows != columns
    np.testing.assert_allclose(np.abs(np.asarray(image.affine)[:2, :2]), np.diag([columns, rows]), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(image)[..., 0], apply_modality_lut(header.pixel_array, header).T)
    assert reading.pixel_spacing is not None
    assert "digitised film" in reading.pixel_spacing


@pytest.fixture
def half_turns(small_cases: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files that the script of the table writes."""
    script = small_cases / "nifti" / "near_half_turn.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "turned")])
    runpy.run_path(str(script), run_name="__main__")
    return tmp_path / "turned"


def test_nifti_near_a_half_turn_is_placed_by_its_sform(
    half_turns: Path, real_data: Path, read: Callable[[Source], tuple[Any, Reading]]
) -> None:
    written_by_dcm2niix = real_data / "nifti" / "dcm2niix_near_half_turn.nii"
    for path in (half_turns / "nibabel.nii.gz", half_turns / "itk.nii.gz", written_by_dcm2niix):
        expected = nib.load(path)
        image, _ = read(Source(path))
        np.testing.assert_allclose(image.affine, expected.get_sform(), rtol=0, atol=1e-6)
        np.testing.assert_allclose(image, expected.get_fdata(), rtol=1e-6, atol=1e-6)


def test_nifti_of_two_places_is_refused_and_its_cure_works(
    half_turns: Path, read: Callable[[Source], tuple[Any, Reading]]
) -> None:
    path = half_turns / "twenty_mm_apart.nii.gz"
    with pytest.raises(InputError) as refused:
        OpenedSource(Source(path)).check(channels=None)
    (cure,) = re.findall(r"nibabel: (image\.set_qform\(.*?\)\))", str(refused.value))
    image = nib.load(path)
    place = image.get_sform()
    eval(cure, {"image": image})
    nib.save(image, half_turns / "cured.nii.gz")
    cured, _ = read(Source(half_turns / "cured.nii.gz"))
    np.testing.assert_allclose(cured.affine, place, rtol=0, atol=1e-4)
