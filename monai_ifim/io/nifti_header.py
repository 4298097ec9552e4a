"""Checks of a NIfTI header before any voxel is read: programs repair a damaged header silently, each in its own way."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
from nibabel.openers import ImageOpener

from monai_ifim.io.errors import InputError, redacted, unquoted
from monai_ifim.io.geometry import is_invertible, same_grid

LENGTHS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}  # nifti1.h: XYZT_TO_SPACE
HALVES = (b"ni1", b"ni2")  # the magic texts of headers whose voxels lie in another file
LARGEST_DEFLATION = 1032  # largest ratio of plain to compressed bytes that gzip reaches
LARGEST_EXTENSIONS = 2**28  # bytes; matrices of CIFTI-2 describe themselves in a hundredth of that


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """The header of a NIfTI file, read once.

    stated: the header as it is in the file. image, spare: nibabel's view of it (no voxel is read), of which MONAI's repair
    may change the second; both None if nibabel refuses the file for `refusal`.
    """

    path: Path
    stated: Any
    image: Any
    spare: Any
    refusal: Exception | None

    @property
    def frames(self) -> int:
        """Number of volumes; raises InputError if nibabel cannot read the header."""
        return math.prod(self._readable().shape[3:])

    def check(self) -> None:
        """Raise InputError, with the cure, for a header that is damaged or that programs read differently."""
        if bytes(self.stated["magic"])[:3] in HALVES:
            raise InputError(
                f"{self.path.name}: its header is that of a pair of files, and programs look for the voxels in different places: "
                "give it the name .hdr beside its .img, or write it again as one .nii."
            )
        _check_sizes(self.path, self.stated)
        _check_place(self.path, self._readable(), self.spare)

    def _readable(self) -> Any:
        if self.refusal is not None:
            said = unquoted(self.refusal)
            raise InputError(f"{self.path.name}: not a readable NIfTI file ({said}): copy it again.") from redacted(self.refusal)
        return self.image


def read_nifti_header(path: Path) -> NiftiHeader:
    """Read the header, opening the file once; raises InputError if there is none."""
    try:
        with ImageOpener(str(path)) as file:
            block = file.read(nib.Nifti2Header.sizeof_hdr)
            second = nib.Nifti2Header.may_contain_header(block)
            kind: Any = nib.Nifti2Header if second else nib.Nifti1Header
            stated = kind(block[: kind.sizeof_hdr], check=False)  # nibabel.load would repair it and log that
            _check_extensions(path, stated, file)
            views, refusal = _views(nib.Nifti2Image if second else nib.Nifti1Image, file.fobj)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path.name}: not a readable NIfTI file ({unquoted(error)}): copy it again.") from redacted(error)
    return NiftiHeader(path, stated, *views, refusal)


def _check_extensions(path: Path, header: Any, file: Any) -> None:
    """Raise InputError for extensions (nifti1.h) that are too long, or of a length that makes nibabel unpack the whole file."""
    file.seek(header.sizeof_hdr)
    if file.read(4)[:1] in (b"", b"\0"):
        return
    left = float(header["vox_offset"]) - header.sizeof_hdr - 4
    if not left <= LARGEST_EXTENSIONS:
        raise InputError(f"{path.name}: {left:g} bytes of extensions before its voxels: export it again without them.")
    order = "<" if header.endianness == "<" else ">"
    while left >= 16:
        stated = file.read(8)
        size = struct.unpack(f"{order}i", stated[:4])[0] if len(stated) == 8 else 0
        if not 8 <= size <= left or len(file.read(size - 8)) < size - 8:
            raise InputError(f"{path.name}: its extensions are not as long as they state: export it again without them.")
        left -= size


def _views(kind: Any, file: BinaryIO) -> tuple[tuple[Any, Any], Exception | None]:
    """Two images over one open file, or the error that nibabel raises for its header."""
    views = []
    for _ in range(2):
        file.seek(0)
        try:
            views.append(kind.from_stream(file))
        except Exception as error:
            return (None, None), error
    return (views[0], views[1]), None


def _check_sizes(path: Path, header: Any) -> None:
    """Raise InputError for sizes, voxel sizes or types of voxels that make no image, as the file itself states them.

    Lengths and offsets: NIfTI-1 and NIfTI-2, nifti1.h and nifti2.h; a voxel size is a positive number there.
    """
    count = int(header["dim"][0])
    shape = [int(size) for size in header["dim"][1 : count + 1]]
    if not 1 <= count <= 7 or min(shape) < 1:
        raise InputError(f"{path.name}: its header states a size of {tuple(shape)}: it is damaged, export the image again.")
    if count > 4 and math.prod(shape[3:]) > 1:
        raise InputError(f"{path.name}: {count} axes {tuple(shape)}; only 3D and 4D files are read: take one volume out of it.")
    steps = [float(step) for step, size in zip(header["pixdim"][1:4], shape[:3], strict=False) if size > 1]
    if not all(0 < step < math.inf for step in steps):
        said = " x ".join(f"{step:g}" for step in steps)
        raise InputError(
            f"{path.name}: its header states voxels of {said}: a size must be above zero; write the true sizes into the header "
            "(nibabel: image.header.set_zooms)."
        )
    _check_type(path, header)
    _check_length(path, header, math.prod(shape))


def _check_place(path: Path, image: Any, spare: Any) -> None:
    """Raise InputError for a header that programs read as different places in the world, or as none."""
    from monai.data.image_reader import correct_nifti_header_if_necessary

    unit = LENGTHS.get(int(image.header["xyzt_units"]) % 8, "a unit that NIfTI does not know")
    if unit not in ("mm", "unknown"):
        raise InputError(
            f"{path.name}: its lengths are in {unit}: rewrite it in mm (nibabel: set_xyzt_units('mm'), scaled affine)."
        )
    shape, affine = image.shape[:3], image.affine
    if not is_invertible(affine):
        raise InputError(
            f"{path.name}: its affine is singular or not finite, so its voxels have no place: give it a true one (nibabel: "
            "image.set_sform, image.set_qform)."
        )
    try:
        sform, qform = image.get_sform(coded=True), image.get_qform(coded=True)
        monais = correct_nifti_header_if_necessary(spare).affine
    except Exception as error:  # MONAI also reads a qform whose code says that it does not count
        raise InputError(
            f"{path.name}: its qform is not a rotation ({unquoted(error)}), and MONAI cannot read it: write another (nibabel: "
            "image.set_qform(image.affine, 1))."
        ) from error
    if sform[1] > 0 and qform[1] > 0 and not same_grid(sform[0], qform[0], shape):
        raise InputError(
            f"{path.name}: its sform and its qform are different places, and programs choose differently: settle on one "
            "(nibabel: image.set_qform(image.get_sform()), or the other way round)."
        )
    if not same_grid(affine, monais, shape):
        raise InputError(
            f"{path.name}: its voxel sizes contradict its affine, and MONAI would move the image: rewrite the header (nibabel: "
            "image.set_sform(image.affine, 1); image.set_qform(image.affine, 1))."
        )


def _check_type(path: Path, header: Any) -> None:
    try:
        kind = header.get_data_dtype().kind
    except Exception as error:
        code = int(header["datatype"])
        raise InputError(f"{path.name}: its voxels are of an unknown type (code {code}): export the image again.") from error
    if kind == "c":
        raise InputError(f"{path.name}: its voxels are complex numbers: take their magnitude (numpy.abs) or phase first.")
    if kind == "V":
        raise InputError(f"{path.name}: its voxels are colours (RGB): convert the image to grey values first.")


def _check_length(path: Path, header: Any, voxels: int) -> None:
    """Raise InputError for a file that is too short for the voxels that its header states."""
    needed = voxels * header.get_data_dtype().itemsize
    held = path.stat().st_size * (LARGEST_DEFLATION if path.name.lower().endswith(".gz") else 1)
    if needed > held:
        raise InputError(
            f"{path.name}: its header states {needed} bytes of voxels, more than are in the file: it is cut short or damaged, "
            "copy it again."
        )
