"""Analyze, MGH and AFNI: what is assumed is said, and what programs read differently or nobody knows is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from scipy.io import savemat

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.nibabel_files.opening import read_volume_header
from volume_writers import write_afni, write_analyze

Array = npt.NDArray[Any]
VALUES = np.random.default_rng(4).integers(0, 900, (6, 5, 4)).astype(np.int16)
FREESURFER_HEADER = nib.freesurfer.mghformat.header_dtype


def check(path: Path) -> OpenedSource:
    opened = OpenedSource(Source(path))
    opened.check(1)
    return opened


def test_analyze_without_a_mat_lies_where_nibabel_puts_it_and_left_and_right_are_said_to_be_assumed(tmp_path: Path) -> None:
    path = write_analyze(tmp_path / "scan", VALUES)
    opened = check(path)
    expected = [[-2, 0, 0, 5], [0, 3, 0, -6], [0, 0, 4, -6], [0, 0, 0, 1]]
    np.testing.assert_array_equal(opened.volume_header.affine, expected)  # type: ignore[union-attr]
    np.testing.assert_array_equal(nib.load(path).affine, expected)
    assert opened.reading.place == "assumed"
    (said,) = opened.reading.words()
    assert "left and right" in said
    assert "the middle of the image as zero" in said


def test_the_origin_of_spm_places_analyze(tmp_path: Path) -> None:
    path = write_analyze(tmp_path / "scan", VALUES, origin=[2, 3, 1, 0, 0])
    opened = check(path)
    np.testing.assert_array_equal(opened.volume_header.affine @ [1, 2, 0, 1], [0, 0, 0, 1])  # type: ignore[union-attr]
    np.testing.assert_array_equal(opened.volume_header.affine, nib.load(path).affine)  # type: ignore[union-attr]
    assert "the origin in its header" in opened.reading.words()[0]


def test_a_mat_that_says_nothing_of_left_and_right_is_read_as_nibabel_does(tmp_path: Path) -> None:
    path = write_analyze(tmp_path / "scan", VALUES)
    matrix = np.array([[2.0, 0.1, 0, -7], [0, 3, 0, -8], [0, 0, 4, -9], [0, 0, 0, 1]])
    savemat(tmp_path / "scan.mat", {"M": matrix}, format="4")
    opened = check(path)
    np.testing.assert_allclose(opened.volume_header.affine @ [0, 0, 0, 1], [4.9, -5, -5, 1])  # type: ignore[union-attr]
    np.testing.assert_array_equal(opened.volume_header.affine, nib.load(path).affine)  # type: ignore[union-attr]
    assert [said for said in opened.reading.words() if "left and right" in said]


def test_the_scale_that_spm_states_is_applied_and_said(tmp_path: Path) -> None:
    path = write_analyze(tmp_path / "scan", VALUES, scl_slope=0.5)
    opened = check(path)
    np.testing.assert_array_equal(opened.volume_header.open().get_fdata(), VALUES * 0.5)  # type: ignore[union-attr]
    assert "multiplied by 0.5" in opened.reading.words()[1]


def test_mgh_lies_where_its_header_says(oblique: Array, tmp_path: Path) -> None:
    """The format's own rule: a voxel lies at directions x sizes x (index - dims / 2), from the place of the centre."""
    nib.save(nib.MGHImage(VALUES, oblique), tmp_path / "scan.mgh")
    stated = np.frombuffer((tmp_path / "scan.mgh").read_bytes()[: FREESURFER_HEADER.itemsize], FREESURFER_HEADER)[0]
    header = read_volume_header(tmp_path / "scan.mgh")
    for index in ([0, 0, 0], [5, 0, 3], [2, 4, 1]):
        expected = (stated["Mdc"].T * stated["delta"]) @ (index - stated["dims"][:3] / 2) + stated["Pxyz_c"]
        np.testing.assert_allclose((header.affine @ [*index, 1])[:3], expected, atol=1e-4)


@pytest.mark.parametrize("values", [VALUES.astype(np.uint8), VALUES.astype(np.float32), VALUES], ids=lambda v: v.dtype.name)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_afni_lies_where_its_header_says(values: Array, order: tuple[int, ...], tmp_path: Path) -> None:
    """ORIGIN and DELTA, along the axes that ORIENT_SPECIFIC names, say the same as IJK_TO_DICOM_REAL in another way."""
    affine = np.diag([-2.0, 3.0, 4.5, 1.0])[:, [*order, 3]]
    affine[:3, 3] = [10, -20, 30]
    path = write_afni(tmp_path, values, affine)
    opened = check(path)
    np.testing.assert_allclose(opened.volume_header.affine, affine)  # type: ignore[union-attr]
    np.testing.assert_array_equal(opened.volume_header.open().get_fdata()[..., 0], values)  # type: ignore[union-attr]
    assert [file.name for file in opened.hashed] == ["scan+orig.HEAD", "scan+orig.BRIK"]
    assert opened.digest != ""


def freesurfer(path: Path, *places: tuple[int, bytes]) -> Path:
    """An MGH file with other bytes at offsets of its header."""
    nib.save(nib.MGHImage(VALUES, np.diag([2.0, 3.0, 4.0, 1.0])), path)
    content = bytearray(path.read_bytes())
    for place, other in places:
        content[place : place + len(other)] = other
    path.write_bytes(content)
    return path


TWO = np.diag([2.0, 2.0, 2.0, 1.0])
TURNED = np.array([[0.96, -0.28, 0, 1], [0.28, 0.96, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1.0]])
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "orientation": (lambda folder: write_analyze(folder / "a", VALUES, orient=b"\x02"), "another orientation than transverse"),
    "unit": (lambda folder: write_analyze(folder / "a", VALUES, vox_units=b"cm"), "in another unit than mm"),
    "calibrated": (
        lambda folder: write_analyze(folder / "a", VALUES, cal_max=1.0, cal_min=0.0, glmax=900, glmin=0), "calibrated",
    ),
    "size of zero": (lambda folder: write_analyze(folder / "a", VALUES, pixdim=[0, 0, 3, 4, 0, 0, 0, 0]), "voxels of 0 x 3 x 4"),
    "no place": (lambda folder: freesurfer(folder / "a.mgh", (28, b"\0\0")), "states no place"),
    "version": (lambda folder: freesurfer(folder / "a.mgh", (0, b"\0\0\0\7")), "version 7"),
    "type": (lambda folder: freesurfer(folder / "a.mgh", (20, b"\0\0\0\x4d")), r"unknown type \(code 77\)"),
    "no size": (lambda folder: freesurfer(folder / "a.mgh", (4, b"\xff\xff\xff\xff")), r"a size of \(-1, 5, 4\)"),
    "cut": (lambda folder: freesurfer(folder / "a.mgh", (4, b"\0\0\x10\0")), "more than are in the file"),
    "directions": (lambda folder: freesurfer(folder / "a.mgh", (42, b"\x40\x40\0\0")), "no unit vectors"),
    "no IJK_TO_DICOM_REAL": (lambda folder: write_afni(folder, VALUES, TURNED, IJK_TO_DICOM_REAL=None), "no IJK_TO_DICOM_REAL"),
    "another origin": (
        lambda folder: write_afni(folder, VALUES, TWO, ORIGIN=[0.3, 0.0, 0.0]), "contradicts its DELTA and ORIGIN",
    ),
    "other sizes": (lambda folder: write_afni(folder, VALUES, TURNED, DELTA=[1.1, 1.0, 1.0]), "contradicts its DELTA and ORIGIN"),
    "two types": (lambda folder: write_afni(folder, VALUES, TURNED, BRICK_TYPES=[1, 3]), "not a readable header of AFNI"),
    "no order": (lambda folder: write_afni(folder, VALUES, TURNED, BYTEORDER_STRING=None), "not a readable header of AFNI"),
    "complex": (lambda folder: write_afni(folder, VALUES.astype(np.complex64), TURNED), "complex numbers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_programs_read_differently_is_refused(kind: str, tmp_path: Path) -> None:
    make, words = REFUSED[kind]
    with pytest.raises(InputError, match=words) as error:
        check(make(tmp_path))
    assert "somebody" not in str(error.value)


@pytest.mark.parametrize("moved", [0.19, 0.21])
def test_afni_may_round_its_origin_to_a_tenth_of_a_voxel(moved: float, tmp_path: Path) -> None:
    path = write_afni(tmp_path, VALUES, TWO, ORIGIN=[moved, 0.0, 0.0])
    if moved < 0.2:
        check(path)
        return
    with pytest.raises(InputError, match="contradicts"):
        check(path)


@pytest.mark.parametrize(
    "content", [b"", b"x", bytes(70_000), b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"], ids=["empty", "short", "long", "FSL"]
)
def test_a_mat_of_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    path = write_analyze(tmp_path / "scan", VALUES)
    (tmp_path / "scan.mat").write_bytes(content)
    with pytest.raises(InputError, match="is no affine of SPM: move it away"):
        check(path)
    (tmp_path / "scan.mat").rename(tmp_path / "other.mat")
    check(path)


@pytest.mark.parametrize("left", ["scan+orig.HEAD", "scan+orig.BRIK"])
def test_half_a_dataset_is_refused(left: str, tmp_path: Path) -> None:
    write_afni(tmp_path, VALUES, TURNED)
    whole = {name: (tmp_path / name).read_bytes() for name in ("scan+orig.HEAD", "scan+orig.BRIK")}
    for name in whole:
        if name != left:
            (tmp_path / name).unlink()
    with pytest.raises(InputError, match="not beside it: copy both into one folder"):
        check(tmp_path / left)
    for name, content in whole.items():
        (tmp_path / name).write_bytes(content)
    check(tmp_path / left)
    write_afni(tmp_path, VALUES, TURNED, packed=True)
    with pytest.raises(InputError, match="are there twice"):
        check(tmp_path / left)
    (tmp_path / "scan+orig.BRIK").unlink()
    check(tmp_path / "scan+orig.HEAD")
