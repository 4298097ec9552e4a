"""Sizes that the compressed frames of a DICOM file state themselves: a decoder believes them, and not the file's header."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import pydicom
from pydicom.config import disable_value_validation

from monai_ifim.io.dicom.header import UNDEFINED

ITEM = (0xFFFE, 0xE000)  # tag in compressed pixel data (PS3.5, A.4)
PIXEL_ELEMENT = 12  # bytes of tag, type and length before the items
JPEG, JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
FRAMES_OF_JPEG = {0xF7, *range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that state a size; F7: JPEG-LS (ISO/IEC 14495-1)
WITHOUT_LENGTH = {0x00, 0x01, *range(0xD0, 0xD9)}
BOX = b"jP  "  # type of the first box of a JP2 file (ISO/IEC 15444-1, I.5.1)
LONGEST_BOXES = 2**16  # bytes before the codestream in it
LONGEST_BEGINNING = 2**20  # bytes of a JPEG before its size, besides those that it says may be skipped


def frame_sizes(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Columns and rows that each compressed frame of a DICOM file states; none for a file that is not compressed, or damaged."""
    file.seek(0)
    with suppress(Exception):  # the reader of the image explains what is damaged
        with disable_value_validation():  # its warnings would show what is in the header
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=["Rows"])
            encapsulated = header.file_meta.TransferSyntaxUID.is_encapsulated
        if not encapsulated:
            return
        file.seek(PIXEL_ELEMENT, 1)
        for start, length in _items(file):
            file.seek(start)
            size = _size(file)
            if size is not None:
                yield size
            file.seek(start + length)


def _items(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Place and length of the items: a table of offsets, then fragments of frames."""
    while True:
        group, element, length = struct.unpack("<HHL", file.read(8))
        if (group, element) != ITEM:
            return
        yield file.tell(), length
        if length == UNDEFINED:
            return


def _size(file: BinaryIO) -> tuple[int, int] | None:
    """The size at the beginning of a codestream; None for the later parts of one, and other kinds."""
    start = file.tell()
    begins = file.read(LONGEST_BOXES)
    if begins.startswith(JPEG):
        file.seek(start + len(JPEG))
        return _size_of_jpeg(file)
    found = begins.find(JPEG_2000)  # at its beginning, or after the boxes of a JP2 file
    if found and not (found > 0 and begins[4:8] == BOX):
        return None
    found += len(JPEG_2000)
    _, _, width, height, left, top = struct.unpack(">HHIIII", begins[found : found + 20])  # ISO/IEC 15444-1, A.5.1
    return width - left, height - top


def _size_of_jpeg(file: BinaryIO) -> tuple[int, int] | None:
    """The size in the first frame header (ISO/IEC 10918-1, B.2.2); decoders skip what is no marker before it."""
    passed = 0
    while passed < LONGEST_BEGINNING and (byte := file.read(1)):
        passed += 1
        if byte != b"\xff":
            continue
        while (byte := file.read(1)) == b"\xff":
            passed += 1
        if not byte or byte[0] in WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack(">H", file.read(2))
        if byte[0] in FRAMES_OF_JPEG:
            _, height, width = struct.unpack(">BHH", file.read(5))
            return width, height
        file.seek(max(0, length - 2), 1)
    return None
