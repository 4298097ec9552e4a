"""How large an input is by its header: files that are small and claim or hold much are refused before they are unpacked."""

from __future__ import annotations

import gzip
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom import deflated
from monai_ifim.io.limits import NO_LIMITS, LimitError, Limits, Size
from monai_ifim.io.stated_size import check_size
from python_memory import peak_of
from synthetic_series import COLUMNS, ORIENTATIONS, ROWS, Series, write

MEBIBYTE = 2**20
VALUES = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def check(path: Path, limits: Limits = NO_LIMITS, **source: Any) -> None:
    check_size(OpenedSource(Source(path, **source)), limits)


def size_of(path: Path, **source: Any) -> Size:
    """The size that `check_size` finds, from the numbers in its refusals."""
    found = []
    for limits in (Limits(1, 0, 0), Limits(0, 1, 0)):
        with pytest.raises(LimitError) as caught:
            check(path, limits, **source)
        found.append(int(re.findall(r": (\d+) (?:voxels|bytes)", str(caught.value))[0]))
    return Size(*found)


def save_itk(path: Path) -> None:
    itk.imwrite(itk.image_from_array(VALUES), str(path))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "scan.nii": lambda path: nib.save(nib.Nifti1Image(VALUES, np.eye(4)), path),
    "scan.nii.gz": lambda path: nib.save(nib.Nifti2Image(VALUES, np.eye(4)), path),
    "scan.npy": lambda path: np.save(path, VALUES),
    "scan.npz": lambda path: np.savez_compressed(path, VALUES),
    "scan.nrrd": save_itk,
    "scan.nhdr": save_itk,
    "scan.mha": save_itk,
    "scan.mhd": save_itk,
    "scan.hdr": save_itk,
    "scan.png": lambda path: Image.fromarray(np.zeros((5, 12), np.uint16)).save(path),
    "scan.bmp": lambda path: Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(path),
    "scan.jpg": lambda path: Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(path),
    "scan.tif": lambda path: Image.fromarray(np.zeros((5, 8, 3), np.uint8)).save(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_size_of_each_format_is_that_of_its_values(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = size_of(tmp_path / name)
    assert found.voxels == (60 if VALUES.size == 60 and not name.endswith(("bmp", "jpg", "tif")) else 120)
    extra = 128 if name.endswith("npz") else 0  # an archive's member has a header
    assert found.bytes == 120 + extra
    check(tmp_path / name)
    check(tmp_path / name, Limits(found.voxels, found.bytes, 0))


def test_defaults_take_a_whole_body_and_a_study_of_512_slices() -> None:
    limits = Limits()
    for shape, depth in (((512, 512, 2048), 8), ((512, 512, 512), 4), ((256, 384, 384), 8)):
        limits.check("scan", Size(int(np.prod(shape)), int(np.prod(shape)) * depth))


def test_message_has_the_size_the_limit_and_an_option_that_lifts_it() -> None:
    limits = Limits(100, 1000, 5)
    with pytest.raises(LimitError, match=r"^scan: 101 voxels, more than the limit of 100: .* give --max-voxels 101 \(or 0"):
        limits.check("scan", Size(101, 10))
    with pytest.raises(LimitError, match=r"^scan: 1001 bytes when unpacked, .* limit of 1000: .* --max-bytes 1001 \(or 0"):
        limits.check("scan", Size(100, 1001))
    replace(limits, voxels=101).check("scan", Size(101, 10))
    replace(limits, voxels=0, bytes=0).check("scan", Size(10**18, 10**18))
    assert "--max-seconds" in str(limits.too_slow("scan: reading it"))
    for name in ("voxels", "bytes", "seconds"):
        with pytest.raises(InputError, match=f"limit of -1 {name}"):
            replace(limits, **{name: -1})
    with pytest.raises(InputError, match="nan"):
        Limits(seconds=float("nan"))


# --- NIfTI


def nifti_bytes(shape: tuple[int, ...], offset: int = 352, extension: bytes = b"\0\0\0\0", body: bytes = b"") -> bytes:
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.uint8)
    header["vox_offset"] = offset
    return bytes(header.binaryblock) + extension + body


def write_gz(path: Path, *parts: bytes) -> Path:
    with gzip.open(path, "wb", compresslevel=1) as file:
        for part in parts:
            file.write(part)
    return path


def test_small_file_of_a_huge_image_is_refused_by_its_header(tmp_path: Path) -> None:
    path = write_gz(tmp_path / "bomb.nii.gz", nifti_bytes((2000, 2000, 2000)), bytes(8 * MEBIBYTE))

    def refuse() -> None:
        with pytest.raises(LimitError, match=r"^bomb\.nii\.gz: 8000000000 voxels, .* --max-voxels 8000000000"):
            check(path, Limits())

    assert peak_of(refuse) < MEBIBYTE


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".bmp"])
def test_size_of_an_ordinary_picture_is_known_without_loading_itk(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading all of ITK's modules takes seconds of every run, however few its pictures are."""
    path = tmp_path / f"a{suffix}"
    Image.new("L", (30, 20)).save(path)
    asked: list[Path] = []
    monkeypatch.setattr("monai_ifim.io.stated_size._itk_size", asked.append)
    with pytest.raises(LimitError, match="600 voxels"):
        check_size(OpenedSource(Source(path)), Limits(voxels=599))
    check_size(OpenedSource(Source(path)), Limits())
    assert not asked
    renamed = path.rename(tmp_path / "a.mha")  # what one reader takes for a picture another may not
    check_size(OpenedSource(Source(renamed)), Limits())
    assert asked == [renamed]


def test_a_chosen_frame_counts_alone(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 7), np.int16), np.eye(4)), tmp_path / "scan.nii")
    assert size_of(tmp_path / "scan.nii") == Size(420, 840)
    assert size_of(tmp_path / "scan.nii", frame=2) == Size(60, 120)


@pytest.mark.parametrize("length", [0, 7, -16, 2**30])
@pytest.mark.parametrize("order", ["<", ">"])
def test_extension_of_a_false_length_is_refused_and_not_unpacked(length: int, order: str, tmp_path: Path) -> None:
    """nibabel alone takes lengths below 8 to mean all of the file."""
    header = nib.Nifti1Header(endianness=order)
    header.set_data_shape((2, 2, 2))
    header["vox_offset"] = 352 + 64
    start = bytes(header.binaryblock) + b"\1\0\0\0" + struct.pack(f"{order}ii", length, 6)
    path = write_gz(tmp_path / "scan.nii.gz", start, bytes(64 * MEBIBYTE))

    def refuse() -> None:
        with pytest.raises(InputError, match=r"^scan\.nii\.gz: its extensions are not as long as they state"):
            check(path)

    assert peak_of(refuse) < 4 * MEBIBYTE


def test_extensions_of_the_length_of_an_image_are_refused(tmp_path: Path) -> None:
    start = nifti_bytes((2, 2, 2), 2**29, b"\1\0\0\0", struct.pack("<ii", 2**28, 6))
    path = write_gz(tmp_path / "scan.nii.gz", start, bytes(32 * MEBIBYTE))

    def refuse() -> None:
        with pytest.raises(InputError, match="bytes of extensions before its voxels: export it again without them"):
            check(path)

    assert peak_of(refuse) < 4 * MEBIBYTE


def test_extensions_as_programs_write_them_are_read(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VALUES, np.eye(4))
    for text in ("short", "x" * 100_000):
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", text.encode()))
    nib.save(image, tmp_path / "scan.nii.gz")
    assert size_of(tmp_path / "scan.nii.gz").voxels == 60


# --- DICOM


def test_slices_of_a_series_count_together(tmp_path: Path) -> None:
    folder = write(tmp_path / "series", Series(ORIENTATIONS["axial"], slices=6).slices())
    assert size_of(folder) == Size(6 * ROWS * COLUMNS, 12 * ROWS * COLUMNS)


def test_uneven_gaps_that_make_a_huge_even_grid_are_refused(tmp_path: Path) -> None:
    series = Series(ORIENTATIONS["axial"], slices=5)
    series.places = np.array([0, 1e-2, 2e-2, 3e-2, 1e5])
    folder = write(tmp_path / "series", series.slices())
    with pytest.raises(LimitError, match="series: 3[0-9]+ voxels when resampled onto an even grid"):
        check(folder, Limits(10**6, 0, 0), fix_geometry=True)


def deflated_bomb(path: Path, size: int) -> Path:
    """A deflated CT image with `size` zero bytes after its pixels."""
    image = Series(ORIENTATIONS["axial"], slices=1).slices()[0]
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(path)
    content = path.read_bytes()
    start = next(at for at in range(200, 1000) if _inflates(content[at:]))
    packing = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packing.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS))
    body += packing.compress(struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, size) + bytes(size)) + packing.flush()
    path.write_bytes(content[:start] + body)
    return path


def _inflates(content: bytes) -> bool:
    try:
        return zlib.decompress(content, -zlib.MAX_WBITS)[:2] == b"\x08\x00"
    except zlib.error:
        return False


def test_deflated_dicom_is_counted_and_its_header_is_read_without_unpacking_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = deflated_bomb(tmp_path / "bomb.dcm", 64 * MEBIBYTE)
    assert path.stat().st_size < MEBIBYTE / 4
    monkeypatch.setattr(deflated, "LARGEST_HEADER", 2 * MEBIBYTE)

    def refuse() -> None:
        with pytest.raises(LimitError, match=r"bomb\.dcm: \d+ bytes when unpacked, more than the limit of 4194304"):
            check(path, Limits(0, 4 * MEBIBYTE, 0))

    assert peak_of(refuse) < 24 * MEBIBYTE
    check(path, Limits(0, 80 * MEBIBYTE, 0))
    check(path, Limits(0, 0, 0))


def test_header_of_a_deflated_file_is_that_of_the_plain_one(tmp_path: Path) -> None:
    image = Series(ORIENTATIONS["oblique"], slices=1).slices()[0]
    image.save_as(tmp_path / "plain.dcm")
    image.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    image.save_as(tmp_path / "deflated.dcm")
    plain, packed = (OpenedSource(Source(tmp_path / name)).files[0].header for name in ("plain.dcm", "deflated.dcm"))
    assert len(plain) > 10
    assert {each.tag: each.value for each in plain} == {each.tag: each.value for each in packed}
    content = pydicom.dcmread(tmp_path / "deflated.dcm")
    assert content.PixelData == image.PixelData


CODECS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "JPEG": ("JPEG", JPEGBaseline8Bit, {}),
    "JPEG 2000": ("JPEG2000", JPEG2000Lossless, {"no_jp2": True}),
    "JP2": ("JPEG2000", JPEG2000Lossless, {}),
}


def compressed(path: Path, codec: str, size: tuple[int, int], change: Callable[[bytes], bytes] = bytes) -> Path:
    """A DICOM image whose compressed frame has `size` columns and rows."""
    kind, syntax, options = CODECS[codec]
    with io.BytesIO() as file:
        Image.new("L", size).save(file, kind, **options)
        frame = change(file.getvalue())
    image = Series(ORIENTATIONS["axial"], slices=1).slices()[0]
    image.file_meta.TransferSyntaxUID = syntax
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit, image.PixelRepresentation = 7, 0
    image.PixelData = encapsulate([frame])
    image.save_as(path)
    return path


@pytest.mark.parametrize("codec", CODECS)
def test_compressed_frame_that_is_larger_than_its_header_is_refused(codec: str, tmp_path: Path) -> None:
    check(compressed(tmp_path / "true.dcm", codec, (COLUMNS, ROWS)))
    for size in ((COLUMNS + 1, ROWS), (COLUMNS, 3000)):
        with pytest.raises(InputError, match=rf"lies\.dcm: its compressed pixels are {size[0]} x {size[1]}, more than the 7 x 5"):
            check(compressed(tmp_path / "lies.dcm", codec, size))


@pytest.mark.parametrize("filling", [b"\xff" * 100, b"\x00\x01" * 500, b"\xff\x01", b"\xff\xfe\x04\x00" + bytes(1022)])
def test_filling_before_the_size_does_not_hide_it(filling: bytes, tmp_path: Path) -> None:
    def fill(frame: bytes) -> bytes:
        return frame[:2] + filling + frame[2:]

    check(compressed(tmp_path / "true.dcm", "JPEG", (COLUMNS, ROWS), fill))
    with pytest.raises(InputError, match="its compressed pixels are 3000 x 3000"):
        check(compressed(tmp_path / "lies.dcm", "JPEG", (3000, 3000), fill))


# --- NumPy


def npy_header(shape: tuple[int, ...], version: int = 1, padding: int = 0) -> bytes:
    with io.BytesIO() as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        text = file.getvalue()[10:].rstrip(b"\n") + b" " * padding + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text


def test_array_of_a_huge_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb.npy").write_bytes(npy_header((10**6, 10**6), 2))
    with pytest.raises(LimitError, match="1000000000000 voxels"):
        check(tmp_path / "bomb.npy", Limits())


def test_array_whose_header_is_a_bomb_is_refused_and_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", npy_header((2, 2), 2, padding=64 * MEBIBYTE))

    def refuse() -> None:
        with pytest.raises(InputError, match=r"bomb\.npz: its header is not that of an array"):
            check(path)

    assert peak_of(refuse) < 4 * MEBIBYTE


def test_arrays_of_an_archive_count_together_by_header_and_by_index(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "two.npz", first=VALUES, second=VALUES)
    assert size_of(tmp_path / "two.npz") == Size(120, 2 * (120 + 128))
    with zipfile.ZipFile(tmp_path / "long.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("image.npy", npy_header((2, 2)) + bytes(MEBIBYTE))
        archive.writestr("beside.bin", bytes(MEBIBYTE))
    with pytest.raises(LimitError, match="20972[0-9]+ bytes when unpacked"):
        check(tmp_path / "long.npz", Limits(0, MEBIBYTE, 0))


def test_archive_is_known_by_its_content(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "two.npz", VALUES)
    (tmp_path / "two.npz").rename(tmp_path / "scan.npy")
    assert size_of(tmp_path / "scan.npy").voxels == 60


# --- pictures, NRRD, MetaImage


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def tiff(width: int, tile: int) -> bytes:
    tags = [(256, width), (257, width), (258, 8), (259, 8), (262, 1), (277, 1), (322, tile), (323, tile), (324, 8), (325, 4)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


HEADERS = {
    "bomb.png": png(40_000, 40_000),
    "wide.png": png(12_000, 12_000),  # Pillow warns of it
    "bomb.tif": tiff(16, 60_000),
    "bomb.nrrd": b"NRRD0004\ntype: double\ndimension: 3\nsizes: 5000 5000 5000\nencoding: gzip\nendian: little\n\n\x1f\x8b",
    "bomb.nhdr": b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 5000 5000 5000\nencoding: gzip\ndata file: x.raw.gz\n\n",
    "bomb.mha": b"ObjectType = Image\nNDims = 3\nCompressedData = True\nDimSize = 5000 5000 5000\n"
    b"ElementType = MET_UCHAR\nElementDataFile = LOCAL\nxx",
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_header_of_a_huge_image_is_enough_to_refuse_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(HEADERS[name])
    (tmp_path / "x.raw.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(LimitError, match=rf"^{re.escape(name)}: \d+ voxels, more than the limit of 100000000"):
        check(tmp_path / name, Limits(100_000_000, 0, 0))


def test_metaimage_that_states_more_packed_bytes_than_there_are_is_refused(tmp_path: Path) -> None:
    itk.imwrite(itk.image_from_array(VALUES), str(tmp_path / "scan.mha"), compression=True)
    content = (tmp_path / "scan.mha").read_bytes()
    assert b"CompressedDataSize = " in content
    check(tmp_path / "scan.mha")
    (tmp_path / "scan.mha").write_bytes(re.sub(rb"(CompressedDataSize = )\d+", rb"\g<1>4000000000", content))
    with pytest.raises(InputError, match=r"^scan\.mha: its header states more bytes of compressed voxels than are in the file"):
        check(tmp_path / "scan.mha")


def test_what_no_header_reader_knows_is_left_to_the_reader(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("1\t2\n")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nxx")
    (tmp_path / "empty.nrrd").write_bytes(b"")
    for name in ("table.tsv", "broken.png", "empty.nrrd"):
        check(tmp_path / name, Limits(1, 1, 0))


def test_file_beside_the_image_counts_too(tmp_path: Path) -> None:
    for name, shape in (("image.nii", (2, 2, 2)), ("mask.nii", (9, 9, 9))):
        nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / name)
    beside = (("age", 70), ("gone", tmp_path / "gone.nii"), ("mask", tmp_path / "mask.nii"))
    with pytest.raises(LimitError, match=r"^mask\.nii: 729 voxels"):
        check(tmp_path / "image.nii", Limits(100, 0, 0), beside=beside)
