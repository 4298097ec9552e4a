"""Series and headers whose volume would be built in the wrong place are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ifim.io import InputError, OpenedSource, Source


def copied(source: Path, target: Path, leave_out: tuple[str, ...] = (), keep: int | None = None) -> Path:
    target.mkdir()
    for path in sorted(source.iterdir())[:keep]:
        if path.name not in leave_out:
            shutil.copy(path, target)
    return target


def test_tilted_gantry_is_refused(real_data: Path, tmp_path: Path) -> None:
    nine = copied(real_data / "dicom" / "ct_tilt", tmp_path / "tilt", keep=9)
    with pytest.raises(InputError, match=r"gantry tilted by 18\.5 degrees.*--fix-geometry.*dcm2niix"):
        OpenedSource(Source(nine)).check(1)


def test_missing_slices_are_refused(real_data: Path, tmp_path: Path) -> None:
    gaps = copied(real_data / "dicom" / "ct_plain", tmp_path / "gaps", leave_out=("I100", "I110", "I20"))
    with pytest.raises(InputError, match=r"gaps of 5\.00 to 1[05]\.00 mm"):
        OpenedSource(Source(gaps)).check(1)


def test_regular_series_passes(real_data: Path) -> None:
    OpenedSource(Source(real_data / "dicom" / "ct_plain")).check(1)


@pytest.fixture
def image(oblique: np.ndarray) -> nib.Nifti1Image:
    result = nib.Nifti1Image(np.arange(6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4), oblique)
    result.set_qform(oblique, 1)
    result.set_sform(oblique, 1)
    return result


def moved_qform(image: Any) -> None:
    shifted = image.affine.copy()
    shifted[:3, 3] += 40
    image.set_qform(shifted, 1)


def contradicting_voxel_sizes(image: Any) -> None:
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = 1.0


def microns(image: Any) -> None:
    image.header.set_xyzt_units("micron")


@pytest.mark.parametrize(
    ("spoil", "cure"),
    [(moved_qform, "sform and its qform"), (contradicting_voxel_sizes, "voxel sizes contradict"), (microns, "rewrite it in mm")],
)
def test_header_read_as_different_places_is_refused(
    image: nib.Nifti1Image, tmp_path: Path, spoil: Callable[[Any], None], cure: str
) -> None:
    nib.save(image, tmp_path / "good.nii.gz")
    OpenedSource(Source(tmp_path / "good.nii.gz")).check(1)
    spoil(image)
    nib.save(image, tmp_path / "bad.nii.gz")
    with pytest.raises(InputError, match=cure):
        OpenedSource(Source(tmp_path / "bad.nii.gz")).check(1)
