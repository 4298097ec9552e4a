"""Checks of a NIfTI header before any voxel is read: programs repair a damaged header silently, each in its own way.

Lengths, codes and offsets: NIfTI-1 and NIfTI-2, nifti1.h and nifti2.h.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder
from nibabel.quaternions import mat2quat

from monai_ifim.io.errors import InputError, redacted, unquoted
from monai_ifim.io.geometry import Affine, corner_distance, same_grid, with_steps
from monai_ifim.io.image_files.compression import holder, unpacked
from monai_ifim.io.nibabel_files.header import (
    VolumeHeader,
    check_affine,
    check_length,
    check_shape,
    check_steps,
    check_type,
    stated_shape,
)

LENGTHS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}  # nifti1.h: XYZT_TO_SPACE
HALVES = (b"ni1", b"ni2")  # the magic texts of headers whose voxels lie in another file
LARGEST_EXTENSIONS = 2**28  # bytes; matrices of CIFTI-2 describe themselves in a hundredth of that
LARGEST_HALF = 2**24  # bytes of a header that is a file of its own, with its extensions
FORMS_TOLERANCE = 0.1  # voxels; largest distance between the corners of a grid by sform, by qform and by voxel sizes
QUATERNION_ROUNDING = 2.0**-22  # four units in the last place of the stored float32; ITK, nibabel and dcm2niix reach one
NO_PLACE = (
    "its header states no place (sform and qform of unknown kind): as in nibabel, x is taken to run from right to left, and the "
    "middle of the image as zero; other programs take another place."
)


@dataclass(frozen=True, eq=False)
class NiftiHeader(VolumeHeader):
    """The header of a NIfTI file or pair.

    stated: the header as it is in the file. image: nibabel's view of it (no voxel is read), None if nibabel refuses the file for
    `refusal`.
    """

    stated: Any
    image: Any
    refusal: Exception | None

    @property
    def shape(self) -> tuple[int, ...]:
        """As stated; empty for a number of axes that NIfTI does not have."""
        return stated_shape(self.stated)

    @property
    def bytes_per_voxel(self) -> int:
        """As stated; raises nibabel's error for an unknown type."""
        return int(self.stated.get_data_dtype().itemsize)

    @property
    def frames(self) -> int:
        """See `VolumeHeader`."""
        return math.prod(self._readable().shape[3:])

    @property
    def affine(self) -> Affine:
        """The sform, or the qform where there is none, or else what nibabel assumes."""
        return np.asarray(self._readable().affine, dtype=np.float64)

    @property
    def place(self) -> str:
        """The name of the form, or "assumed"."""
        header = self._readable().header
        return "sform" if header["sform_code"] > 0 else "qform" if header["qform_code"] > 0 else "assumed"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """The place, if neither form states one."""
        return (NO_PLACE,) if self.place == "assumed" else ()

    @property
    def distance_of_forms(self) -> float | None:
        """Distance in mm of the corners by sform and by qform, None unless both are stated; raises InputError as `check`."""
        header = self._readable().header
        if not (header["sform_code"] > 0 and header["qform_code"] > 0):
            return None
        return corner_distance(header.get_sform(), self._qform(header), self.shape[:3])

    def check(self) -> None:
        """Raise InputError, with the cure, for a header that is damaged or that programs read differently."""
        if self.voxels == self.path and bytes(self.stated["magic"])[:3] in HALVES:
            raise InputError(
                f"{self.path.name}: its header is that of a pair of files, and programs look for the voxels in different places: "
                "give it the name .hdr beside its .img, or write it again as one .nii."
            )
        name = self.path.name
        check_shape(name, self.shape)
        cure = "write the true sizes into the header (nibabel: image.header.set_zooms)"
        check_steps(name, self.stated["pixdim"][1:4], self.shape, cure)
        check_type(name, self.stated, "datatype")
        check_length(self)
        self._check_place()

    def open(self) -> Any:
        """A nibabel image of its own, its voxels not read yet."""
        self._readable()
        return open_nifti(self.path, None if self.voxels == self.path else self.voxels)

    def frame(self, number: int) -> Any:
        """One of the volumes with the header of the file."""
        volume = self.open().slicer[..., number]
        if volume.get_data_dtype().kind != "f":
            volume.set_data_dtype("float64")  # otherwise nibabel would quantise the scaled values again
        return volume

    def _check_place(self) -> None:
        """Raise InputError for a header that programs read as different places in the world, or as none."""
        name, header, shape = self.path.name, self._readable().header, self.shape[:3]
        unit = LENGTHS.get(int(header["xyzt_units"]) % 8, "a unit that NIfTI does not know")
        if unit not in ("mm", "unknown"):
            raise InputError(
                f"{name}: its lengths are in {unit}: rewrite it in mm (nibabel: set_xyzt_units('mm'), scaled affine)."
            )
        check_affine(name, self.affine, "nibabel: image.set_sform, image.set_qform")
        if self.place != "sform":
            return
        if header["qform_code"] > 0:
            if not self._forms_agree():
                raise InputError(
                    f"{name}: its sform and its qform are different places, and programs choose differently: settle on one "
                    "(nibabel: image.set_qform(image.get_sform()), or the other way round)."
                )
        elif not same_grid(self.affine, with_steps(self.affine, self._steps, self.affine[:3, 3]), shape, FORMS_TOLERANCE):
            raise InputError(
                f"{name}: its voxel sizes contradict its affine, and programs choose differently: rewrite the header (nibabel: "
                "image.set_sform(image.affine, 1); image.set_qform(image.affine, 1))."
            )

    def _forms_agree(self) -> bool:
        """True if sform and qform state one place, as exactly as a qform can.

        A float32 quaternion holds a rotation near a half turn only to some thousandths of a radian. Where the stored one is what
        the sform would be written as, it says nothing against the sform; voxel sizes and first voxel are compared as they are.
        """
        shape, header = self.shape[:3], self._readable().header
        if self._is_rotation_of_sform():
            first = [header[f"qoffset_{axis}"] for axis in "xyz"]
            return same_grid(self.affine, with_steps(self.affine, self._steps, first), shape, FORMS_TOLERANCE)
        return same_grid(self.affine, self._qform(header), shape, FORMS_TOLERANCE)

    def _is_rotation_of_sform(self) -> bool:
        """True if the stored quaternion is what the sform would be written as, to QUATERNION_ROUNDING."""
        header = self._readable().header
        anew = header.copy()
        anew.set_qform(self.affine, 1)
        stored, written = (np.array([float(each[f"quatern_{part}"]) for part in "bcd"]) for each in (header, anew))
        if header["pixdim"][0] != anew["pixdim"][0]:  # one is a mirror image
            return False
        # At a half turn a quaternion and its negative are one rotation, and rounding chooses.
        signs = (1, -1) if self._cosine_of_half_turn() <= QUATERNION_ROUNDING else (1,)
        return any(np.abs(stored - sign * written).max() <= QUATERNION_ROUNDING for sign in signs)

    def _cosine_of_half_turn(self) -> float:
        """Of half the angle by which the sform turns: the part of its quaternion that NIfTI does not store, 0 at a half turn."""
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        axes[:, 2] *= np.sign(np.linalg.det(axes))
        return abs(float(mat2quat(axes)[0]))

    @property
    def _steps(self) -> Any:
        return np.asarray(self._readable().header["pixdim"][1:4], dtype=np.float64)

    def _qform(self, header: Any) -> Affine:
        try:
            return np.asarray(header.get_qform(), dtype=np.float64)
        except Exception as error:
            alone = not header["sform_code"] > 0
            cure = "export the image again" if alone else "write another (nibabel: image.set_qform(image.affine, 1))"
            raise InputError(f"{self.path.name}: its qform is not a rotation ({unquoted(error)}): {cure}.") from error

    def _readable(self) -> Any:
        if self.refusal is not None:
            if self.stated["qform_code"] > 0 and not self.stated["sform_code"] > 0:
                self._qform(self.stated)
            said = unquoted(self.refusal)
            raise InputError(f"{self.path.name}: not a readable NIfTI file ({said}): copy it again.") from redacted(self.refusal)
        return self.image


def open_nifti(path: Path, voxels: Path | None = None) -> Any:
    """The image of a NIfTI file or pair, its voxels not read yet, without the checks of `read_nifti_header`.

    Its file is opened once and stays open. Raises OSError and what nibabel raises.
    """
    file = unpacked(path)
    second = nib.Nifti2Header.may_contain_header(file.read(nib.Nifti2Header.sizeof_hdr))
    return _image(second, file, voxels)


def read_nifti_header(path: Path, voxels: Path | None = None) -> NiftiHeader:
    """Read the header, opening the file once; raises InputError if there is none. voxels: the other file of a pair."""
    try:
        with unpacked(path) as file:
            block = file.read(nib.Nifti2Header.sizeof_hdr)
            second = nib.Nifti2Header.may_contain_header(block)
            kind: Any = nib.Nifti2Header if second else nib.Nifti1Header
            stated = kind(block[: kind.sizeof_hdr], check=False)  # nibabel.load would repair it and log that
            _check_extensions(path, stated, file, alone=voxels is not None)
            image, refusal = _view(second, file, voxels)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path.name}: not a readable NIfTI file ({unquoted(error)}): copy it again.") from redacted(error)
    return NiftiHeader(path, voxels or path, stated, image, refusal)


def _check_extensions(path: Path, header: Any, file: BinaryIO, alone: bool) -> None:
    """Raise InputError for extensions (nifti1.h) that are too long, or of a length that makes nibabel unpack the whole file.

    alone: the header is a file of its own, and its extensions go on to the end.
    """
    file.seek(header.sizeof_hdr)
    if file.read(4)[:1] in (b"", b"\0"):
        return
    left = float(header["vox_offset"]) - header.sizeof_hdr - 4
    if alone:
        left = len(file.read(LARGEST_HALF + 1))
        file.seek(header.sizeof_hdr + 4)
    if not left <= (LARGEST_HALF if alone else LARGEST_EXTENSIONS):
        raise InputError(f"{path.name}: {left:g} bytes of extensions before its voxels: export it again without them.")
    order = "<" if header.endianness == "<" else ">"
    while left >= 16:
        stated = file.read(8)
        size = struct.unpack(f"{order}i", stated[:4])[0] if len(stated) == 8 else 0
        if not 8 <= size <= left or len(file.read(size - 8)) < size - 8:
            raise InputError(f"{path.name}: its extensions are not as long as they state: export it again without them.")
        left -= size


def _view(second: bool, file: BinaryIO, voxels: Path | None) -> tuple[Any, Exception | None]:
    """An image over an open header, or the error that nibabel raises for it."""
    try:
        return _image(second, file, voxels), None
    except Exception as error:
        return None, error


def _image(second: bool, file: BinaryIO, voxels: Path | None) -> Any:
    """An image over an open header. second: of NIfTI-2; voxels: the other file of a pair."""
    file.seek(0)
    opened = FileHolder(fileobj=file)
    if voxels is None:
        return (nib.Nifti2Image if second else nib.Nifti1Image).from_file_map({"image": opened})
    return (nib.Nifti2Pair if second else nib.Nifti1Pair).from_file_map({"header": opened, "image": holder(voxels)})
