"""Files in folders that may be images and are of no format that is read: counted by kind, so that none is left out in silence.

A kind is a suffix, or "DICOM" and the standard name of a SOP class. Texts, documents and programs are no images.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from monai_ifim.io.source import IMAGE_SUFFIXES

ARCHIVES = (
    ".zip", ".tar", ".tgz", ".tbz2", ".txz", ".rar", ".7z", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".iso",
)  # fmt: skip
# Formats of images, of volumes and of films that no reader here takes, or not by this name.
OTHER_FORMATS = (
    ".acr", ".avi", ".bruker", ".czi", ".dcm30", ".dic", ".dicom", ".dng", ".ecat", ".fdf", ".fid", ".gif",
    ".gipl", ".h5", ".hdf", ".hdf5", ".heic", ".i", ".ima", ".inr", ".isq", ".j2k", ".jp2", ".jpx", ".lif", ".lsm",
    ".m4v", ".mif", ".mih", ".mkv", ".mnc", ".mov", ".mp4", ".mpeg", ".mpg", ".mrc", ".mrd", ".nd2",
    ".ndpi", ".nia", ".npx", ".oib", ".oif", ".par", ".pcx", ".pgm", ".pic", ".pkl", ".ppm", ".pt", ".pth", ".raw", ".rec",
    ".sdt", ".spr", ".svs", ".v", ".vff", ".vmr", ".vms", ".voi", ".vol", ".vsi", ".vti", ".vtk", ".webp", ".wmv", ".xif",
    ".zarr", ".zraw",
)  # fmt: skip
# Binary files that are no images: documents, tables, programs and their parts, sounds, surfaces and tracts, weights of networks.
NO_IMAGES = (
    ".annot", ".area", ".cab", ".class", ".ckpt", ".curv", ".db", ".dll", ".doc", ".docx", ".dylib", ".eot", ".exe", ".gii",
    ".ico", ".inf", ".inflated", ".jar", ".lnk", ".mp3", ".msi", ".obj", ".odp", ".ods", ".odt", ".onnx", ".otf", ".parquet",
    ".pdf", ".pem", ".pial", ".ply", ".ppt", ".pptx", ".pyc", ".pyd", ".rtf", ".safetensors", ".so", ".sphere", ".sqlite", ".stl",
    ".sulc", ".sys", ".tck", ".thickness", ".trk", ".ttf", ".wav", ".whl", ".white", ".woff", ".woff2", ".xls", ".xlsx",
)  # fmt: skip
TEXTS = (".csv", ".json", ".log", ".tsv", ".txt", ".xml")  # where they are compressed
OF_SLICES = (".dcm", ".ima", ".dicom", ".dic", ".acr")
KNOWN = (*IMAGE_SUFFIXES, *OTHER_FORMATS, *ARCHIVES)
NO_SUFFIX, OTHER_SUFFIXES = "no suffix", "other suffixes"
BESIDE_DICOM = " beside DICOM images"
PLAIN = re.compile(r"\.[a-z][a-z0-9_]{0,9}")
BEGINNING = 512  # bytes in which a text is known
NOT_ASCII = bytes(range(0x80, 0x100))
NO_CONTROL = b"\t\n\f\r\x1b" + bytes(range(0x20, 0x7F)) + NOT_ASCII  # what a text of any set has
MOST_NAMED = 12  # kinds in one sentence


def kind_of_unread(file: Path) -> str | None:
    """The kind of a file that may be an image: its suffix, or NO_SUFFIX; None for what is none."""
    suffix = _suffix(file.name)
    if suffix.endswith(NO_IMAGES):
        return None
    if suffix.endswith(KNOWN):
        packed_text = suffix in ARCHIVES and file.name.lower().removesuffix(suffix).endswith(TEXTS)
        return None if packed_text else suffix
    return None if _is_text(file) else suffix or NO_SUFFIX


def kind_beside_dicom(file: Path) -> str | None:
    """The kind of a file of another format that lies among the slices of a series; None for what may be a slice, or is no image.

    By its name alone: the slices of a series are opened once, when they are read.
    """
    suffix = _suffix(file.name)
    named = suffix.endswith(KNOWN) and not suffix.endswith(OF_SLICES)
    return f"{suffix}{BESIDE_DICOM}" if named else None


def counted(kinds: Iterable[str]) -> dict[str, int]:
    """The number of files of each kind, sorted by kind."""
    return dict(sorted(Counter(kinds).items()))


def without_names(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts with those of unknown suffixes in one: such a suffix may be a part of a name that is not to be told."""
    told = {kind: number for kind, number in counts.items() if not kind.startswith(".") or _family(kind).endswith(KNOWN)}
    others = sum(counts.values()) - sum(told.values())
    return told | ({OTHER_SUFFIXES: others} if others else {})


def sentence(counts: Mapping[str, int]) -> str:
    """The files that were not read, in one line with the cure; empty if there are none."""
    if not counts:
        return ""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{number} {kind}" for kind, number in most[:MOST_NAMED])
    more = sum(number for _, number in most[MOST_NAMED:])
    cures = [
        "unpack archives" if any(_family(kind).endswith(ARCHIVES) for kind in counts) else "",
        "name a file beside DICOM images itself" if any(kind.endswith(BESIDE_DICOM) for kind in counts) else "",
        "convert other formats to NIfTI",
    ]
    named += f" and {more} of other kinds" if more else ""
    return f"Not read: {named}. If they are images: {', '.join(filter(None, cures))}."


def _family(kind: str) -> str:
    return kind.removesuffix(BESIDE_DICOM)


def _suffix(name: str) -> str:
    """The suffix in small letters; of a packed file with that before it, if this is of an image; empty for a part of a number."""
    stem, dot, last = name.lower().rpartition(".")
    suffix = f"{dot}{last}"
    if not stem.strip(".") or not (PLAIN.fullmatch(suffix) or suffix in KNOWN):
        return ""
    before = stem[stem.rfind(".") :] if "." in stem else ""
    return before + suffix if suffix in ARCHIVES and before in KNOWN else suffix


def _is_text(file: Path) -> bool:
    """True for a text, and for a file without content; False where it cannot be read."""
    try:
        with file.open("rb") as opened:
            beginning = opened.read(BEGINNING)
    except OSError:
        return False
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):  # UTF-16
        return True
    if beginning.translate(None, NO_CONTROL):
        return False
    return len(beginning.translate(None, NOT_ASCII)) * 3 >= len(beginning) * 2 or _is_utf8(beginning)


def _is_utf8(beginning: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return True
