"""Pairs of files: a header .hdr and its voxels .img, in NIfTI or Analyze 7.5 (nifti1.h, dbh.h)."""

from __future__ import annotations

import zlib
from pathlib import Path

from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.compression import unpacked

SUFFIXES = (".hdr", ".img", ".hdr.gz", ".img.gz")
SIZES = {(348).to_bytes(4, "little"), (348).to_bytes(4, "big"), (540).to_bytes(4, "little"), (540).to_bytes(4, "big")}
MAGIC = 344  # bytes before the magic text of NIfTI-1
WHOLE = (b"n+1\0", b"n+2\0")  # NIfTI's words for voxels in the same file
HALVES = (b"ni1\0", b"ni2\0")  # and for voxels in the other one
SPM = ".mat"  # SPM's affine of an Analyze image, which nibabel reads


def files_of_pair(path: Path) -> tuple[Path, ...]:
    """Header, voxels, and SPM's .mat if there is one, of a pair of which one file is given; that file alone if it is no pair.

    Raises InputError for a header or voxels that are missing, or there twice.
    """
    stem, given, upper = _parts(path)
    is_header = given.startswith(".hdr")
    header = path if is_header else _only(path, stem, ".hdr", upper)
    beginning = _beginning(header)
    if beginning[:4] not in SIZES:
        if is_header:
            return (path,)
        raise InputError(f"{path.name}: {header.name} beside it is no header of NIfTI or Analyze: convert it to NIfTI.")
    if _magic(beginning, WHOLE):
        raise InputError(f"{header.name}: a whole NIfTI file under a name of half a pair: give it a name that ends in .nii.")
    image = _only(path, stem, ".img", upper) if is_header else path
    spm = path.with_name(stem + (SPM.upper() if upper else SPM))
    return (header, image, spm) if spm.exists() and not _magic(beginning, HALVES) else (header, image)


def is_header(path: Path) -> bool:
    """True for a file that begins as a header of NIfTI or Analyze, whatever its name; False where there is none."""
    return path.is_file() and _beginning(path)[: len(next(iter(SIZES)))] in SIZES


def is_analyze(header: Path) -> bool:
    """True for the header of a pair that is Analyze 7.5 and not NIfTI; raises OSError."""
    beginning = _beginning(header)
    return beginning[:4] in SIZES and not _magic(beginning, (*WHOLE, *HALVES))


def header_of_pair(path: Path) -> Path:
    """The header that lies beside voxels, by its name alone; `path` itself if there is none, or for a header."""
    stem, given, upper = _parts(path)
    if given.startswith(".hdr"):
        return path
    beside = (path.with_name(stem + (suffix.upper() if upper else suffix)) for suffix in (".hdr", ".hdr.gz"))
    return next((header for header in beside if header.exists()), path)


def _parts(path: Path) -> tuple[str, str, bool]:
    """The name without its suffix, the suffix in small letters, and whether it is in capital ones."""
    given = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(suffix))
    return path.name[: -len(given)], given, path.name[-len(given) :].isupper()


def _magic(beginning: bytes, words: tuple[bytes, ...]) -> bool:
    return beginning[MAGIC : MAGIC + 4] in words or beginning[4:8] in words


def _only(path: Path, stem: str, suffix: str, upper: bool) -> Path:
    """The other file of the pair, compressed or not."""
    suffixes = [each.upper() if upper else each for each in (suffix, f"{suffix}.gz")]
    found = [place for each in suffixes if (place := path.with_name(stem + each)).exists()]
    if len(found) != 1:
        said = "is not beside it: copy both into one folder" if not found else "is there twice, compressed and not: remove one"
        raise InputError(f"{path.name}: its other half, {stem}{suffixes[0]}, {said}, or convert it to NIfTI.")
    return found[0]


def _beginning(header: Path) -> bytes:
    try:
        with unpacked(header) as file:
            return file.read(MAGIC + 4)
    except (EOFError, zlib.error):
        return b""
    except OSError as error:
        if error.errno is not None:
            raise
        return b""  # gzip.BadGzipFile
