"""Scanner space on real scans: the files are the scan's own voxels, at their places, in Hounsfield units where it is a CT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io import read_sidecar
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings

Array = npt.NDArray[Any]
NIFTI = ("MR_Gd", "spm152", "spmMotor")
pytestmark = pytest.mark.slow


def decomposed(path: Path, output: Path, frame: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Images by their content, and the sidecar."""
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    case = CaseSettings("categorical", energy=1.0, space="scanner", contents=("high", "low"), resolution="network")
    settings = RunSettings(output, case)
    [row] = run_cases(bundle, find_cases([path], frame=frame), settings, lambda row: None)
    assert row.status == "done", row.reason
    folder = output / row.case
    images = {part: nib.load(folder / f"{row.case}_ifim_{part}.nii.gz") for part in ("input", "high", "low")}
    return images, read_sidecar(folder / f"{row.case}_ifim.json")


def assert_sum(images: dict[str, Any], scan: Array) -> None:
    high, low, shown = (np.asarray(images[part].dataobj, dtype=np.float64) for part in ("high", "low", "input"))
    rounding = 4 * np.finfo(np.float32).eps * np.abs(scan).max()
    np.testing.assert_array_equal(shown, scan.astype(np.float32))
    np.testing.assert_allclose(high + low, scan, rtol=0, atol=rounding)


@pytest.mark.parametrize("name", NIFTI)
def test_high_and_low_are_the_nifti_voxel_by_voxel(name: str, real_data: Path, tmp_path: Path) -> None:
    path = real_data / "nifti" / f"{name}.nii.gz"
    images, sidecar = decomposed(path, tmp_path / "out")
    scan = nib.load(path)
    assert_sum(images, scan.get_fdata())
    for image in images.values():
        np.testing.assert_allclose(image.affine, scan.affine, rtol=0, atol=1e-5)
    assert sidecar["units"]["maps"] == "scanner units"


def test_high_and_low_are_one_volume_of_a_real_4d_nifti(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "nifti" / "pcasl.nii.gz"
    images, _ = decomposed(path, tmp_path / "out", frame=3)
    assert_sum(images, nib.load(path).get_fdata()[..., 3])


def test_high_and_low_are_the_ct_series_in_hounsfield_units(real_data: Path, tmp_path: Path) -> None:
    """Each slice as pydicom reads it, looked up by the places of its pixels."""
    folder = real_data / "dicom" / "ct_plain"
    images, sidecar = decomposed(folder, tmp_path / "out")
    shown, summed = np.asarray(images["input"].dataobj), sum(images[part].get_fdata() for part in ("high", "low"))
    rounding = 4 * np.finfo(np.float32).eps * np.abs(shown).max()
    to_voxels, seen = np.linalg.inv(images["high"].affine), 0
    for file in sorted(folder.iterdir()):
        image = pydicom.dcmread(file)
        hounsfield = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
        rows, columns = np.meshgrid(np.arange(image.Rows), np.arange(image.Columns), indexing="ij")
        right, down = np.array(image.ImageOrientationPatient[:3]), np.array(image.ImageOrientationPatient[3:])
        steps = columns[..., None] * right * image.PixelSpacing[1] + rows[..., None] * down * image.PixelSpacing[0]
        places = (np.array(image.ImagePositionPatient) + steps) * [-1, -1, 1]
        voxels = np.rint(places @ to_voxels[:3, :3].T + to_voxels[:3, 3]).astype(int)
        found = tuple(np.moveaxis(voxels, -1, 0))
        np.testing.assert_array_equal(shown[found], hounsfield.astype(np.float32))
        np.testing.assert_allclose(summed[found], hounsfield, rtol=0, atol=rounding)
        seen += hounsfield.size
    assert seen == shown.size
    assert sidecar["units"]["maps"] == "Hounsfield units"
