"""NIfTI headers that programs read as different places are refused, and headers are read without a voxel."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.geometry import corner_distance
from monai_ifim.io.nibabel_files.nifti import read_nifti_header

Array = npt.NDArray[Any]
SHAPE = (96, 80, 30)
SMALLEST = 0.7  # mm, of the voxels of `near_half_turn`


@pytest.fixture
def image(oblique: np.ndarray) -> nib.Nifti1Image:
    result = nib.Nifti1Image(np.arange(6 * 5 * 4, dtype=np.float32).reshape(6, 5, 4), oblique)
    result.set_qform(oblique, 1)
    result.set_sform(oblique, 1)
    return result


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
    np.testing.assert_array_equal(header.affine, nib.load(path).affine)


def near_half_turn(seed: int) -> Array:
    """An affine whose rotation misses a half turn by 1e-9 to 1e-2 radians, about any axis or one of the grid, mirrored or not."""
    random = np.random.default_rng(seed)
    axis = random.normal(size=3) if seed % 3 else np.eye(3)[seed // 3 % 3] + 1e-4 * random.normal(size=3)
    angle = np.pi - 10 ** random.uniform(-9, -2)
    axes = Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix() @ np.diag([1, 1, 1 if seed % 2 else -1])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes @ np.diag([SMALLEST, 1.1, 4.3]), random.uniform(-200, 200, 3)
    return affine


def by_nibabel(affine: Array, path: Path) -> None:
    written = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine)
    written.set_sform(affine, 1)
    written.set_qform(affine, 1)
    nib.save(written, path)


def by_itk(affine: Array, path: Path) -> None:
    steps, lps = np.linalg.norm(affine[:3, :3], axis=0), np.diag([-1.0, -1.0, 1.0])
    written = itk.image_from_array(np.zeros(SHAPE[::-1], np.uint8))
    written.SetSpacing(steps.tolist())
    written.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps @ affine[:3, :3] / steps)))
    written.SetOrigin((lps @ affine[:3, 3]).tolist())
    itk.imwrite(written, str(path))


def test_what_programs_write_near_a_half_turn_is_accepted_and_placed_by_the_sform(tmp_path: Path) -> None:
    """Their qforms are off by tenths of a voxel: a float32 quaternion holds no more."""
    path, farthest, signs = tmp_path / "image.nii", 0.0, set()
    for seed in range(24):
        for write in (by_nibabel, by_itk):
            affine = near_half_turn(seed)
            write(affine, path)
            header = read_nifti_header(path)
            header.check()
            assert header.place == "sform"
            assert corner_distance(affine, header.affine, SHAPE) < 1e-4
            assert header.distance_of_forms is not None
            farthest = max(farthest, header.distance_of_forms)
            anew = header.image.header.copy()
            anew.set_qform(header.affine, 1)
            signs.add(float(np.sign(anew["quatern_b"] * header.image.header["quatern_b"])))
    assert farthest > 0.1 * SMALLEST  # corners alone would not do
    assert -1.0 in signs  # nor would one of the two signs of a quaternion


@pytest.mark.parametrize(("turned", "accepted"), [(3e-4, True), (6e-3, False)])
def test_a_rotation_that_a_quaternion_does_hold_is_compared(turned: float, accepted: bool, tmp_path: Path) -> None:
    """By the corners, a tenth of a voxel; away from a half turn, and near one beyond what float32 leaves open."""
    for affine in (np.diag([SMALLEST, 1.1, 4.3, 1.0]), np.diag([-SMALLEST, -1.1, 4.3, 1.0])):
        other = affine.copy()
        other[:3, :3] = Rotation.from_rotvec([0, 0, turned]).as_matrix() @ affine[:3, :3]
        written = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), affine)
        written.set_sform(affine, 1)
        written.set_qform(other, 1)
        nib.save(written, tmp_path / "image.nii")
        if accepted:
            read_nifti_header(tmp_path / "image.nii").check()
            continue
        with pytest.raises(InputError, match="different places"):
            read_nifti_header(tmp_path / "image.nii").check()


@pytest.mark.parametrize("what", ["first voxel", "size"])
@pytest.mark.parametrize(("distance", "accepted"), [(0.09, True), (0.11, False)])
@pytest.mark.parametrize("seed", [1, 2])
def test_first_voxel_and_sizes_agree_to_a_tenth_of_a_voxel_near_a_half_turn_too(
    what: str, distance: float, accepted: bool, seed: int, tmp_path: Path
) -> None:
    path = tmp_path / "image.nii"
    by_nibabel(near_half_turn(seed), path)
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    if what == "size":
        header["pixdim"][1] += distance * SMALLEST / (SHAPE[0] - 1)
    else:
        header["qoffset_y"] += distance * SMALLEST
    path.write_bytes(header.binaryblock + content[348:])
    if accepted:
        read_nifti_header(path).check()
        return
    with pytest.raises(InputError, match="different places"):
        read_nifti_header(path).check()


def test_a_mirror_image_is_another_place(image: Any, tmp_path: Path) -> None:
    nib.save(image, tmp_path / "image.nii")
    content = bytearray((tmp_path / "image.nii").read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    header["pixdim"][0] *= -1
    (tmp_path / "image.nii").write_bytes(header.binaryblock + content[348:])
    with pytest.raises(InputError, match="different places"):
        read_nifti_header(tmp_path / "image.nii").check()


def test_files_near_a_half_turn_that_others_wrote(real_data: Path) -> None:
    header = read_nifti_header(real_data / "nifti" / "dcm2niix_near_half_turn.nii")
    header.check()
    assert header.distance_of_forms == pytest.approx(0.0034, abs=2e-4)


def test_what_is_assumed_of_a_file_without_a_place_is_said(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((5, 4, 3), np.int16), None)
    image.header.set_zooms((2.0, 3.0, 4.0))
    nib.save(image, tmp_path / "image.nii")
    reading = OpenedSource(Source(tmp_path / "image.nii")).reading
    assert reading.place == "assumed"
    assert [said for said in reading.words() if "states no place" in said]
    nib.save(nib.Nifti1Image(np.zeros((5, 4, 3), np.int16), np.eye(4)), tmp_path / "image.nii")
    assert OpenedSource(Source(tmp_path / "image.nii")).reading.words() == ()


def contradicting(image: Any) -> None:
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] = 1.0


def slightly(image: Any) -> None:
    image.set_qform(None, 0)
    image.header["pixdim"][1:4] *= 1.001


@pytest.mark.parametrize(("spoil", "accepted"), [(contradicting, False), (slightly, True)])
def test_voxel_sizes_agree_with_an_sform_alone(spoil: Callable[[Any], None], accepted: bool, image: Any, tmp_path: Path) -> None:
    spoil(image)
    nib.save(image, tmp_path / "image.nii")
    if accepted:
        read_nifti_header(tmp_path / "image.nii").check()
        return
    with pytest.raises(InputError, match="voxel sizes contradict"):
        read_nifti_header(tmp_path / "image.nii").check()


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["packed.nii", "plain.nii.gz"])
def test_gzip_is_known_by_its_content(kind: Any, name: str, oblique: Array, tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.int16).reshape(5, 4, 3)
    content = kind(values, oblique).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.startswith("packed") else content)
    header = read_nifti_header(tmp_path / name)
    header.check()
    np.testing.assert_array_equal(header.open().get_fdata(), values)
    np.testing.assert_array_equal(header.affine, kind.from_bytes(content).affine)
