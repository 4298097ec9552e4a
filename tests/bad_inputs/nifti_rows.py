"""Rows of NIfTI files and pictures that are damaged, ambiguous, or unusual."""

from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from PIL import Image

from bad_inputs.attempt import Attempt, Row, bad_input

Array = npt.NDArray[Any]
SHAPE = (9, 7, 11)
VALUES = np.random.default_rng(17).normal(size=SHAPE).astype(np.float32)
AFFINE = np.array([[-1.1, 0.0, 0.0, 31.5], [0.0, 2.3, 0.0, -12.0], [0.0, 0.0, 3.7, 70.25], [0.0, 0.0, 0.0, 1.0]])
DIM, TYPE, STEP, SLOPE, INTERCEPT, SFORM, MAGIC = 40, 70, 80, 112, 116, 280, 344  # bytes of NIfTI-1's header (nifti1.h)


def save(folder: Path, values: Array = VALUES, name: str = "bad.nii", forms: tuple[int, int] = (1, 1), **further: Any) -> Path:
    """Writes a file with nibabel. forms: codes of qform and sform."""
    image = nib.Nifti1Image(values, AFFINE, **further)
    image.set_qform(AFFINE, forms[0])
    image.set_sform(AFFINE, forms[1])
    nib.save(image, folder / name)
    return folder / name


def patched(place: int, form: str, *numbers: Any, values: Array = VALUES, qform: int = 1) -> Callable[[Attempt], Attempt]:
    """A good file with other bytes at an offset of its header."""

    def make(folder: Path) -> Path:
        path = save(folder, values, forms=(qform, 1))
        content = bytearray(path.read_bytes())
        struct.pack_into(form, content, place, *numbers)
        path.write_bytes(content)
        return path

    return bad_input(make)


def cut(suffix: str) -> Callable[[Attempt], Attempt]:
    def make(folder: Path) -> Path:
        path = save(folder, name=f"bad{suffix}")
        path.write_bytes(path.read_bytes()[:-900])
        return path

    return bad_input(make)


def text(name: str) -> Callable[[Attempt], Attempt]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(b"" if name == "empty.nii.gz" else b"no image, only words")
        return folder / name

    return bad_input(make)


def with_values(values: Array, **further: Any) -> Callable[[Attempt], Attempt]:
    return bad_input(lambda folder: save(folder, values, **further))


def one_voxel_is(value: float) -> Callable[[Attempt], Attempt]:
    values = VALUES.copy()
    values[4, 3, 5] = value
    return with_values(values)


def right(values: Array, save_it: Callable[[Path], Path]) -> Callable[[Attempt], Attempt]:
    """An unusual file that must be read as these values."""

    def make(folder: Path) -> Path:
        np.save(folder / "expected.npy", values)
        return save_it(folder)

    return bad_input(make)


def without_scaling(folder: Path) -> Path:
    path = save(folder, STORED)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, SLOPE, 0.0, 7.5)  # nifti1.h: with a slope of 0 neither counts
    path.write_bytes(content)
    return path


def big_endian(folder: Path) -> Path:
    return save(folder, header=nib.Nifti1Header(endianness=">"))


def sheared(folder: Path) -> Path:
    affine = AFFINE.copy()
    affine[:3, 0] += 0.2 * affine[:3, 1]
    image = nib.Nifti1Image(VALUES, affine)
    image.set_qform(None, 0)
    image.set_sform(affine, 1)
    nib.save(image, folder / "bad.nii")
    return folder / "bad.nii"


def at_odds(folder: Path) -> Path:
    moved = AFFINE.copy()
    moved[:3, 3] += 5
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.set_qform(moved, 1)
    image.set_sform(AFFINE, 1)
    nib.save(image, folder / "bad.nii")
    return folder / "bad.nii"


def in_micrometres(folder: Path) -> Path:
    image = nib.Nifti1Image(VALUES, AFFINE)
    image.header.set_xyzt_units("micron")
    nib.save(image, folder / "bad.nii")
    return folder / "bad.nii"


def without_its_image(folder: Path) -> Path:
    nib.save(nib.Nifti1Pair(VALUES, AFFINE), folder / "bad.img")
    (folder / "bad.img").unlink()
    return folder / "bad.hdr"


def from_elsewhere(folder: Path) -> Path:
    (folder / "away").mkdir()
    (folder / "away" / "bad.raw").write_bytes(bytes(60))
    (folder / "bad.mhd").write_text("NDims = 3\nDimSize = 3 4 5\nElementType = MET_UCHAR\nElementDataFile = away/bad.raw\n")
    return folder / "bad.mhd"


def promising_too_much(folder: Path) -> Path:
    content = bytearray(save(folder).read_bytes())
    struct.pack_into("<4h", content, DIM, 3, 30000, 30000, 30000)
    (folder / "bad.nii.gz").write_bytes(gzip.compress(content))
    return folder / "bad.nii.gz"


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def pickled(folder: Path) -> Path:
    (folder / "bad.npy").write_bytes(pickle.dumps(Planted(folder / "executed")))
    return folder / "bad.npy"


def of_many_voxels(folder: Path) -> Path:
    with (folder / "bad.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (1000,) * 3})
    return folder / "bad.npy"


def picture(folder: Path, *channels: int) -> Path:
    values = np.random.default_rng(5).integers(0, 255, (21, 18, *channels)).astype(np.uint8)
    Image.fromarray(values).save(folder / "bad.png")
    return folder / "bad.png"


def cut_picture(folder: Path) -> Path:
    path = picture(folder)
    path.write_bytes(path.read_bytes()[:200])
    return path


COLOURS = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
STORED = np.rint(100 * VALUES).astype(np.int16)
LARGE = np.rint(1000 * VALUES).astype(np.int64)
CONSTANT, VOXEL = np.full(SHAPE, 3.25, np.float32), np.full((1, 1, 1), 3.25, np.float32)
NOT_FINITE = "the image holds NaN or infinite values: mask or clip them first (torch.nan_to_num)."
NO_STEP = (
    "bad.nii: its header states voxels of {} x 2.3 x 3.7: a size must be above zero; write the true sizes into the header ..."
)
NO_PLACE = "bad.nii: its affine is singular or not finite, so its voxels have no place: give it a true one (...)."
CUT = "...: its header states ... bytes of voxels, more than are in the file: it is cut short or damaged, copy it again."

ROWS = [
    Row("a file that is missing", lambda a: a.between(a.folder / "gone.nii.gz"), "failed", "...: no such file or folder."),
    Row("an empty file", text("empty.nii.gz"), "failed", "empty.nii.gz: the file is empty."),
    Row(
        "a .nii.gz that is cut short", cut(".nii.gz"), "failed",
        "bad.nii.gz: cannot be read (...end-of-stream marker was reached): copy it again, or convert it to NIfTI.",
    ),
    Row("a .nii that is cut short", cut(".nii"), "failed", CUT),
    Row("a header that promises more than the file holds", bad_input(promising_too_much), "failed", CUT),
    Row(
        "an image of more voxels than --max-voxels", bad_input(of_many_voxels), "failed",
        "bad.npy: 1000000000 voxels, more than the limit of 536870912: if the image is what you expect, give --max-voxels "
        "1000000000 (or 0 for no limit).",
    ),
    Row(
        "NIfTI of a wrong magic number", patched(MAGIC, "4s", b"xyz\0"), "failed",
        "bad.nii: not a readable NIfTI file (...): copy it again.",
    ),
    Row(
        "a text under a NIfTI's name", text("bad.nii.gz"), "failed",
        "bad.nii.gz: not a readable NIfTI file (...): copy it again.",
    ),
    Row(
        "a file of no known format", text("bad"), "failed",
        "bad: cannot be read (no format that is known): copy it again, or convert it to NIfTI.",
    ),
    Row(
        "a .hdr without its .img", bad_input(without_its_image), "failed",
        "bad.hdr: its other half, bad.img, is not beside it: copy both into one folder, or convert it to NIfTI.",
    ),
    Row(
        "a header that takes its voxels from another folder", bad_input(from_elsewhere), "failed",
        "bad.mhd: its voxels would be read from somewhere else than a file beside it: put both files into one folder, without "
        "links, and let the header name the other by its name alone, or convert it to NIfTI.",
    ),
    Row("NaN in the image", one_voxel_is(np.nan), "failed", NOT_FINITE),
    Row("infinity in the image", one_voxel_is(np.inf), "failed", NOT_FINITE),
    Row("a voxel size of zero", patched(STEP, "<f", 0.0), "failed", NO_STEP.format("0")),
    Row("a negative voxel size", patched(STEP, "<f", -1.1), "failed", NO_STEP.format("-1.1")),
    Row("a voxel size that is NaN", patched(STEP, "<f", np.nan), "failed", NO_STEP.format("nan")),
    Row(
        "a negative number of voxels", patched(DIM, "<4h", 3, -9, 7, 11), "failed",
        "bad.nii: its header states a size of (-9, 7, 11): it is damaged, export the image again.",
    ),
    Row("a singular affine", patched(SFORM, "<4f", 0.0, 0.0, 0.0, 0.0, qform=0), "failed", NO_PLACE),
    Row("an affine that is not finite", patched(SFORM, "<f", np.inf, qform=0), "failed", NO_PLACE),
    Row(
        "a sheared sform", bad_input(sheared), "failed",
        "the grid is sheared (cosine ... between two of its axes, as from a tilted gantry): resample it onto an orthogonal grid "
        "first (...).",
    ),
    Row(
        "sform and qform at odds", bad_input(at_odds), "failed",
        "bad.nii: its sform and its qform are different places, and programs choose differently: settle on one (...).",
    ),
    Row(
        "lengths in micrometres", bad_input(in_micrometres), "failed",
        "bad.nii: its lengths are in micron: rewrite it in mm (...).",
    ),
    Row(
        "4D where 3D is wanted", with_values(np.ones((5, 4, 6, 3), np.float32)), "failed",
        "bad.nii: a 4D file of 3 volumes; choose one with --frame N, N from 0 to 2.",
    ),
    Row(
        "five axes", with_values(np.ones((5, 4, 6, 1, 3), np.float32)), "failed",
        "bad.nii: 5 axes (5, 4, 6, 1, 3); only 3D and 4D files are read: take one volume out of it.",
    ),
    Row(
        "2D where 3D is wanted", with_values(np.ones((5, 4), np.float32)), "failed",
        "bad.nii: an image of 2 dimensions (5, 4), but the network of bundle ... takes 3.",
    ),
    Row(
        "complex numbers", with_values((VALUES + 1j * VALUES).astype(np.complex64)), "failed",
        "bad.nii: its voxels are complex numbers: take their magnitude (numpy.abs) or phase first.",
    ),
    Row(
        "RGB voxels", with_values(COLOURS), "failed",
        "bad.nii: its voxels are colours (RGB): convert the image to grey values first.",
    ),
    Row(
        "voxels of an unknown type", patched(TYPE, "<h", 999), "failed",
        "bad.nii: its voxels are of an unknown type (code 999): export the image again.",
    ),
    Row(
        "an intercept that is NaN", patched(SLOPE, "<2f", 2.0, np.nan, values=STORED), "failed",
        "bad.nii: not a readable NIfTI file (Valid slope but invalid intercept nan): copy it again.",
    ),
    Row("scl_slope 0", right(STORED, without_scaling), "done", "done"),
    Row("big endian", right(VALUES, big_endian), "done", "done"),
    Row("int64", right(LARGE, lambda folder: save(folder, LARGE, dtype=np.int64)), "done", "done"),
    Row("a constant image", right(CONSTANT, lambda folder: save(folder, CONSTANT)), "done", "done"),
    Row("an image of one voxel", right(VOXEL, lambda folder: save(folder, VOXEL)), "done", "done"),
    Row(
        "pickled code in a .npy", bad_input(pickled), "failed",
        "bad.npy: it holds objects or code of Python's, which are not loaded: save plain numbers (numpy.save).",
    ),
    Row(
        "a picture that is cut short", bad_input(cut_picture), "failed",
        "bad.png: cannot be read (...): copy it again, or convert it to NIfTI.", dims=2,
    ),
    Row(
        "a text under a picture's name", text("bad.png"), "failed",
        "bad.png: cannot be read (no format that is known): copy it again, or convert it to NIfTI.", dims=2,
    ),
    Row(
        "a colour picture for a network of one channel", bad_input(lambda folder: picture(folder, 3)), "failed",
        "bad.png: 3 channel(s), but the network of bundle ... takes 1: convert the image (a colour picture to grey, say).",
        dims=2,
    ),
]  # fmt: skip
