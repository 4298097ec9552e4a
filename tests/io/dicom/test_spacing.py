"""Size of the pixels of single images: which attribute states it, and where the image lies in the affine that is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
from monai.transforms import Compose, LoadImage, LoadImaged
from pydicom.dataset import Dataset

from monai_ifim.io import DicomReader, InputError, OpenedSource, Source, register_dicom_reader
from synthetic_series import ORIENTATIONS, Series

CLASSES = {"CR": "1.2.840.10008.5.1.4.1.1.1", "DX": "1.2.840.10008.5.1.4.1.1.1.1", "OT": "1.2.840.10008.5.1.4.1.1.7"}
DETECTOR = "Imager Pixel Spacing (at the detector)"
RATIO = "Pixel Aspect Ratio (1 mm between columns is assumed)"


def region(delta: float, unit: int = 3) -> Dataset:
    """An ultrasound region: centimetres, or another unit."""
    found = Dataset()
    found.PhysicalUnitsXDirection = found.PhysicalUnitsYDirection = unit
    found.PhysicalDeltaX, found.PhysicalDeltaY = -delta, 2 * delta
    return found


def projection(path: Path, modality: str = "DX", **facts: Any) -> Path:
    """A radiograph without a place in space."""
    image: Dataset = Series(ORIENTATIONS["oblique"], slices=1).slices()[0]
    for keyword in ("PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices"):
        image.pop(keyword, None)
    image.Modality, image.SOPClassUID = modality, CLASSES[modality]
    for keyword, value in facts.items():
        setattr(image, keyword, value)
    image.save_as(path)
    return path


def read(path: Path) -> Any:
    loader = LoadImage(image_only=True)
    loader.register(DicomReader())
    return loader(str(path))


STATED = {
    "calibrated": ({"PixelSpacing": [0.3, 0.25], "ImagerPixelSpacing": [0.4, 0.35]}, (0.25, 0.3), "Pixel Spacing"),
    "by a fiducial": (
        {"PixelSpacing": [0.3, 0.25], "ImagerPixelSpacing": [0.3, 0.25], "PixelSpacingCalibrationType": "FIDUCIAL"},
        (0.25, 0.3),
        "Pixel Spacing",
    ),
    "not corrected": ({"PixelSpacing": [0.3, 0.25], "ImagerPixelSpacing": [0.3, 0.25]}, (0.25, 0.3), DETECTOR),
    "alone": ({"PixelSpacing": [0.3, 0.25]}, (0.25, 0.3), "Pixel Spacing"),
    "at the detector": ({"ImagerPixelSpacing": [0.4, 0.35], "NominalScannedPixelSpacing": [9, 9]}, (0.35, 0.4), DETECTOR),
    "film": ({"NominalScannedPixelSpacing": [0.2, 0.15]}, (0.15, 0.2), "Nominal Scanned Pixel Spacing (digitised film)"),
    "ratio": ({"PixelAspectRatio": [3, 2]}, (1.0, 1.5), RATIO),
    "square": ({"PixelAspectRatio": [2, 2]}, (1.0, 1.0), "assumed"),
    "ultrasound": (
        {"SequenceOfUltrasoundRegions": [region(0.02), region(0.02), region(9.0, unit=4)]},
        (0.2, 0.4),
        "Physical Delta (of the ultrasound region)",
    ),
    "ultrasound in two scales": ({"SequenceOfUltrasoundRegions": [region(0.02), region(0.03)]}, (1.0, 1.0), "assumed"),
    "none": ({}, (1.0, 1.0), "assumed"),
}


@pytest.mark.parametrize("modality", CLASSES)
@pytest.mark.parametrize("name", STATED)
def test_pixels_have_the_size_that_is_stated_and_it_is_said_by_what(name: str, modality: str, tmp_path: Path) -> None:
    facts, (columns, rows), stated_by = STATED[name]
    path = projection(tmp_path / "image.dcm", modality, **facts)
    source = OpenedSource(Source(path))
    source.check(channels=1)
    assert source.reading.pixel_spacing == stated_by
    assert source.reading.place == "not stated: at the origin"
    assert ("1 mm is assumed" in " ".join(source.reading.words())) == ("assumed" in stated_by)
    np.testing.assert_allclose(read(path).affine.numpy(), np.diag([-columns, -rows, 1.0, 1.0]), rtol=0, atol=1e-6)


def test_calibrated_radiograph_lies_as_dcm2niix_has_it(tmp_path: Path, dcm2niix: Callable[[Path, Path], nib.Nifti1Image]) -> None:
    path = projection(tmp_path / "image.dcm", **STATED["calibrated"][0])
    np.testing.assert_allclose(dcm2niix(path, tmp_path / "theirs").header.get_zooms()[:2], (0.25, 0.3), rtol=1e-6)


def test_bundle_that_names_pydicom_gets_the_size_too(tmp_path: Path) -> None:
    path = projection(tmp_path / "image.dcm", ImagerPixelSpacing=[0.4, 0.35])
    pipeline = Compose([LoadImaged("image", reader="PydicomReader")])
    register_dicom_reader(pipeline)
    image = pipeline({"image": str(path)})["image"]
    assert image.shape == pydicom.dcmread(path).pixel_array.T.shape
    np.testing.assert_allclose(np.abs(np.diag(image.affine.numpy()))[:2], (0.35, 0.4), rtol=1e-6)


@pytest.mark.parametrize("name", ["Pixel Spacing", "Imager Pixel Spacing", "Nominal Scanned Pixel Spacing"])
def test_size_of_zero_is_refused_and_accepted_once_it_is_corrected(name: str, tmp_path: Path) -> None:
    keyword = name.replace(" ", "")
    path = projection(tmp_path / "image.dcm", **{keyword: [0, 0]})
    for checked in (lambda: OpenedSource(Source(path)).check(channels=1), lambda: read(path)):
        with pytest.raises(InputError, match=rf"its {name} is 0 x 0 mm, and must be above zero: .*correct it"):
            checked()
    projection(path, **{keyword: [0.3, 0.25]})
    OpenedSource(Source(path)).check(channels=1)
    np.testing.assert_allclose(np.diag(read(path).affine.numpy()), [-0.25, -0.3, 1, 1], rtol=1e-6)


def test_single_slice_without_a_size_is_placed_with_one_of_1_mm_and_it_is_said(tmp_path: Path) -> None:
    image = Series(ORIENTATIONS["oblique"], slices=1).slices()[0]
    del image.PixelSpacing
    image.save_as(tmp_path / "slice.dcm")
    source = OpenedSource(Source(tmp_path / "slice.dcm"))
    source.check(channels=1)
    assert (source.reading.pixel_spacing, source.reading.place) == ("assumed", None)
    found = read(tmp_path / "slice.dcm").affine.numpy()
    np.testing.assert_allclose(found[:3, 0], ORIENTATIONS["oblique"][:, 0] * [-1, -1, 1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[:3, 3], np.array(image.ImagePositionPatient, float) * [-1, -1, 1], rtol=0, atol=1e-4)


def test_small_case_of_digitised_film_has_its_size(small_cases: Path) -> None:
    found = read(small_cases / "dicom" / "dx_nominal").affine.numpy()
    np.testing.assert_allclose(np.diag(found)[:2], [-0.15, -0.2], rtol=1e-6)
