"""The world frame of a DICOM series, compared with dcm2niix."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.run.cases import find_cases
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings


@pytest.fixture
def converted(real_data: Path, tmp_path: Path) -> nib.Nifti1Image:
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not installed (Debian package dcm2niix)")
    command = ["dcm2niix", "-b", "n", "-z", "n", "-f", "series", "-o", str(tmp_path), str(real_data / "dicom" / "ct_plain")]
    subprocess.run(command, check=True, capture_output=True)
    return nib.Nifti1Image.from_filename(tmp_path / "series.nii")


def test_series_lies_where_dcm2niix_puts_it(converted: nib.Nifti1Image, real_data: Path, tmp_path: Path) -> None:
    bundle = load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))
    settings = RunSettings(tmp_path / "out", CaseSettings("categorical", contents=()))
    run_cases(bundle, find_cases([real_data / "dicom" / "ct_plain"]), settings, lambda row: None)
    written = nib.Nifti1Image.from_filename(tmp_path / "out" / "ct_plain" / "ct_plain_ifim_input.nii.gz")
    # dcm2niix turns rows round, so the corners of the one are corners of the other in another order.
    theirs, ours = (_corners(image) for image in (converted, written))
    distance = np.linalg.norm(theirs[:, None] - ours[None], axis=2)
    assert np.all(distance.min(axis=0) < 1e-3)
    assert np.all(distance.min(axis=1) < 1e-3)


def test_reader_gives_dcm2niix_values_at_the_same_places(converted: nib.Nifti1Image, real_data: Path) -> None:
    from monai.transforms import LoadImage

    image = LoadImage(image_only=True)(real_data / "dicom" / "ct_plain")
    generator = np.random.default_rng(0)
    voxels = generator.integers(0, image.shape, size=(200, 3))
    world = nib.affines.apply_affine(image.affine.numpy(), voxels)
    theirs = np.rint(nib.affines.apply_affine(np.linalg.inv(converted.affine), world)).astype(int)
    values = converted.get_fdata()[tuple(theirs.T)]
    np.testing.assert_allclose(image.numpy()[tuple(voxels.T)], values, atol=0.5)


def _corners(image: nib.Nifti1Image) -> np.ndarray:
    ends = [(0, size - 1) for size in image.shape[:3]]
    grid = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(nib.affines.apply_affine(image.affine, grid))
