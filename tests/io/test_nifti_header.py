"""NIfTI headers that programs read as different places are refused, and headers are read without a voxel."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ifim.io import InputError
from monai_ifim.io.nifti_header import read_nifti_header


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
    read_nifti_header(tmp_path / "good.nii.gz").check()
    spoil(image)
    nib.save(image, tmp_path / "bad.nii.gz")
    with pytest.raises(InputError, match=cure):
        read_nifti_header(tmp_path / "bad.nii.gz").check()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("kind", "place"), [(nib.Nifti1Image, 344), (nib.Nifti2Image, 4)])
def test_the_header_of_a_pair_under_the_name_of_a_whole_file_is_refused(
    kind: Any, place: int, suffix: str, tmp_path: Path
) -> None:
    """nibabel would read the voxels from the file itself, ITK those of an .img beside it."""
    content = bytearray(kind(np.zeros((4, 3, 2), np.float32), np.eye(4)).to_bytes())
    assert content[place : place + 2] == b"n+"
    content[place : place + 2] = b"ni"
    path = tmp_path / f"image{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(InputError, match="that of a pair of files"):
        read_nifti_header(path).check()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("shape", "frames"), [((4, 3), 1), ((4, 3, 2), 1), ((4, 3, 2, 5), 5)])
def test_frames_and_place_are_those_that_nibabel_loads(
    kind: Any, suffix: str, shape: tuple[int, ...], frames: int, oblique: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / f"image{suffix}"
    nib.save(kind(np.zeros(shape, np.float32), oblique), path)
    header = read_nifti_header(path)
    header.check()
    assert header.frames == frames
    np.testing.assert_array_equal(header.image.affine, nib.load(path).affine)
