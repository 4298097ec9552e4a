"""Deflated DICOM files (PS3.5, A.5): all but the file meta information is compressed, so that a small file may hold much."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

from pydicom.filereader import read_dataset

DEFLATED = "1.2.840.10008.1.2.1.99"
META_START = 132  # after preamble and prefix (PS3.10, 7.1)
CHUNK = 2**20  # bytes read, and at most unpacked, at a time
LARGEST_HEADER = 2**26  # bytes of a header without its pixels


def readable_head(file: BinaryIO) -> BinaryIO:
    """A DICOM file from its beginning; of a deflated one the first LARGEST_HEADER bytes, as pydicom would unpack all of it."""
    meta = _deflated_meta(file)
    file.seek(0)
    if meta is None:
        return file
    head = BytesIO()
    try:
        for chunk in _inflated(file, meta):
            head.write(chunk)
            if head.tell() >= LARGEST_HEADER:
                break
    except zlib.error:  # not deflated, or damaged: pydicom says so
        file.seek(0)
        return file
    file.seek(0)
    stored = zlib.compressobj(0, zlib.DEFLATED, -zlib.MAX_WBITS)
    return BytesIO(file.read(meta) + stored.compress(head.getvalue()) + stored.flush())


def inflated_size(file: BinaryIO, limit: int) -> int:
    """Number of bytes in a deflated file when unpacked, counted until it exceeds the limit (0: no limit); 0 for other files."""
    size = 0
    meta = _deflated_meta(file)
    if meta is None:
        return 0
    try:
        for chunk in _inflated(file, meta):
            size += len(chunk)
            if limit and size > limit:
                break
    except zlib.error:  # whoever reads it refuses it
        return size
    return size


def _deflated_meta(file: BinaryIO) -> int | None:
    """Number of bytes before the deflated part of a file; None if it has none."""
    file.seek(META_START)
    try:
        read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    except Exception:  # a damaged header: pydicom says so
        return None
    end = file.tell()
    file.seek(META_START)
    return end if DEFLATED.encode() in file.read(end - META_START) else None


def _inflated(file: BinaryIO, start: int) -> Iterator[bytes]:
    """The unpacked content in chunks of at most CHUNK bytes; raises zlib.error."""
    file.seek(start)
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    while not unpacking.eof:
        packed = unpacking.unconsumed_tail or file.read(CHUNK)
        if not packed:
            return
        yield unpacking.decompress(packed, CHUNK)
