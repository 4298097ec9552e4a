"""How large an input is by its header, before anything is unpacked."""

from __future__ import annotations

import math
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.uid import UID

from monai_ifim.io.dicom.codestreams import frame_sizes
from monai_ifim.io.dicom.deflated import DEFLATED, inflated_size
from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.parts import files_of
from monai_ifim.io.limits import Limits, Size
from monai_ifim.io.opened_source import OpenedSource
from monai_ifim.io.source import Source

NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
LONGEST_NPY_HEADER = 2**16  # bytes; NumPy reads 10,000 characters of one
LONGEST_META_HEADER = 2**16  # bytes
PACKED_BYTES = re.compile(rb"^\s*CompressedDataSize\s*[=:]\s*(\d{1,30})", re.IGNORECASE | re.MULTILINE)
# pictures that every reader finds of one size; ITK, which loads for seconds, is not asked for a second opinion
PICTURES = {".png": b"\x89PNG\r\n\x1a\n", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".bmp": b"BM"}
TILE_WIDTH, TILE_LENGTH = 322, 323  # TIFF 6.0, section 15


def check_size(opened: OpenedSource, limits: Limits) -> None:
    """Raise LimitError if the input, or a file that lies beside it, is larger than the limits by its header.

    `OpenedSource.check` has passed. An input whose format no header reader knows passes: only the bundle's own reader can tell.
    """
    _check_input(opened, limits)
    for _, value in opened.source.beside:
        if isinstance(value, Path) and value.exists():
            _check_input(OpenedSource(Source(value)), limits)


def _check_input(opened: OpenedSource, limits: Limits) -> None:
    name = opened.source.path.name
    if opened.volume_header is not None:
        limits.check(name, opened.volume_header.size(one_frame=opened.source.frame is not None))
    elif opened.files:
        _check_dicom(opened, limits)
    elif opened.source.path.is_file():
        for size in _file_sizes(opened.source.path):
            limits.check(name, size)


def _check_dicom(opened: OpenedSource, limits: Limits) -> None:
    name, size = opened.source.path.name, Size(0, 0)
    for header in opened.headers:
        counts = [int(header.get(each) or 1) for each in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")]
        voxels = math.prod(counts)
        size = Size(size.voxels + voxels, size.bytes + math.ceil(voxels * int(header.get("BitsAllocated") or 8) / 8))
    limits.check(name, size)
    if opened.resampled:
        limits.check_voxels(name, opened.resampled_voxels, "when resampled onto an even grid")
    for path, header in zip(opened.volume.files, opened.headers, strict=True):
        with disable_value_validation():  # its warnings would show what is in the header
            syntax = UID(str(header.file_meta.get("TransferSyntaxUID", "")))
        if syntax == DEFLATED:
            with path.open("rb") as file:
                limits.check(path.name, Size(0, inflated_size(file, limits.bytes)))
        elif not syntax.is_transfer_syntax or syntax.is_encapsulated:
            _check_frames(path, int(header.Columns), int(header.Rows))


def _check_frames(path: Path, columns: int, rows: int) -> None:
    """Raise InputError for a compressed frame that is larger than the header states: decoders unpack it whole."""
    with path.open("rb") as file:
        for width, height in frame_sizes(file):
            if width > columns or height > rows:
                sizes = f"{width} x {height}, more than the {columns} x {rows}"
                raise InputError(f"{path.name}: its compressed pixels are {sizes} of its header: export the image again.")


def _file_sizes(path: Path) -> Iterator[Size]:
    """What the header readers of the formats that MONAI reads say of a file; none for a format that they do not know."""
    with path.open("rb") as file:
        begins = file.read(LONGEST_META_HEADER)
    _check_packed(path, begins)
    if begins.startswith(NPY_MAGIC):
        with path.open("rb") as file:
            yield _npy_size(file, path.name)
    elif begins.startswith(ZIP_MAGIC):
        yield _npz_size(path)
    else:
        picture, magic = _known(_picture_size, path), PICTURES.get(path.suffix.lower())
        plain = picture is not None and magic is not None and begins.startswith(magic)
        for size in (picture, None if plain else _known(_itk_size, path)):
            if size is not None:
                yield size


def _check_packed(path: Path, begins: bytes) -> None:
    """Raise InputError for a MetaImage that states more compressed bytes than there are: ITK makes room for all of them."""
    stated = PACKED_BYTES.search(begins)
    if stated is None:
        return
    held = sum(file.stat().st_size for file in files_of(path))
    if int(stated[1]) > held:
        raise InputError(
            f"{path.name}: its header states more bytes of compressed voxels than are in the file: it is cut short or damaged, "
            "copy it again."
        )


def _known(of: Callable[[Path], Size | None], path: Path) -> Size | None:
    """The size, None if the file is not of that kind or its header is damaged."""
    try:
        return of(path)
    except Exception:  # what header readers raise for other formats; the reader of the image explains it
        return None


def _picture_size(path: Path) -> Size | None:
    """Size of a picture that Pillow knows; of a TIFF, that of a tile where tiles are larger than the picture."""
    from PIL import Image, ImageMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        picture = Image.open(path)
    with picture:
        mode = ImageMode.getmode(picture.mode)
        tags: Any = getattr(picture, "tag_v2", {})
        tile = int(tags.get(TILE_WIDTH, 0)) * int(tags.get(TILE_LENGTH, 0))
        voxels = max(picture.width * picture.height, tile) * len(mode.bands)
    return Size(voxels, voxels * np.dtype(mode.typestr).itemsize)


def _itk_size(path: Path) -> Size | None:
    """Size of an image that ITK knows (NRRD, MetaImage, Analyze, TIFF and others), whose pixels it does not read."""
    import itk

    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        return None
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    sizes = [int(reader.GetDimensions(axis)) for axis in range(reader.GetNumberOfDimensions())]
    voxels = math.prod(sizes) * int(reader.GetNumberOfComponents())
    return Size(voxels, voxels * int(reader.GetComponentSize()))


def _npy_size(file: IO[bytes], name: str) -> Size:
    """Size of the array of a .npy file; raises InputError for a header that NumPy would not read."""
    begins = file.read(8)
    wide = begins[6:7] != b"\x01"
    length = file.read(4 if wide else 2)
    with suppress(Exception):  # NumPy reads the header as Python, and raises what that raises
        (count,) = struct.unpack("<I" if wide else "<H", length)
        if begins.startswith(NPY_MAGIC) and count <= LONGEST_NPY_HEADER:
            read = np.lib.format.read_array_header_2_0 if wide else np.lib.format.read_array_header_1_0
            shape, _, kind = read(BytesIO(length + file.read(count)))
            voxels = math.prod(shape)
            return Size(voxels, voxels * kind.itemsize)
    raise InputError(f"{name}: its header is not that of an array: save plain numbers again (numpy.save).")


def _npz_size(path: Path) -> Size:
    """Size of all the arrays of a .npz file together, by their headers and by the index of the archive: the larger counts.

    Python unpacks no byte of a member beyond what the index states.
    """
    try:
        voxels = unpacked = 0
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                size = Size(0, 0)
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        size = _npy_size(file, path.name)
                voxels, unpacked = voxels + size.voxels, unpacked + max(size.bytes, member.file_size)
    except InputError:
        raise
    except Exception as error:  # zipfile and the decompressors raise many kinds
        raise InputError(f"{path.name}: not a readable .npz file ({type(error).__name__}): copy it again.") from error
    return Size(voxels, unpacked)
