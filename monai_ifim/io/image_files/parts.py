"""`files_of`: the files that an image consists of. Voxel data apart from the header must lie beside it, by a plain name.

The headers of MetaImage and NRRD can name any file as voxel data, and readers would open it: an image reads only itself.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files import briks, metaimage, nrrd, pairs

LONGEST_BEGINNING = 132  # bytes; DICOM states its own name after 128
BRUKER = "visu_pars"  # ITK reads any file as raw voxels if one of this name lies beside it (itkBruker2dseqImageIO)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files of an image: its header, then its files of voxels in their order; the file alone if it is whole or unknown.

    Only the beginning of the file is read, by its content and not by its name where readers do so. Raises InputError if voxels
    would be read from anywhere but a file beside the header that the header names plainly, and OSError.
    """
    refuse_bruker(path)
    if not path.is_file():
        if path.exists() and not path.is_dir():  # a device has no end
            raise InputError(f"{path.name}: neither a file nor a folder: give the file of an image.")
        return (path,)
    with path.open("rb") as file:
        beginning = file.read(LONGEST_BEGINNING)
    if beginning[128:] == b"DICM":
        return (path,)
    if beginning.startswith(nrrd.MAGIC):
        return (path, *_beside(path, nrrd.data_names(path)))
    if path.name.lower().endswith(metaimage.SUFFIXES):
        return (path, *_beside(path, metaimage.data_names(path)))
    if path.name.lower().endswith(pairs.SUFFIXES):
        header, *others = pairs.files_of_pair(path)
        return (header, *_beside(header, [other.name for other in others]))
    if path.name.lower().endswith(briks.SUFFIXES):
        header, voxels = briks.files_of_dataset(path)
        return (header, *_beside(header, [voxels.name]))
    return (path,)


def first_file(path: Path) -> Path:
    """The file by which an image of two files is known, by its name alone: its header, if one lies beside the voxels given."""
    name = path.name.lower()
    if name.endswith(pairs.SUFFIXES):
        return pairs.header_of_pair(path)
    return briks.header_of_dataset(path) if name.endswith(briks.SUFFIXES) else path


def refuse_bruker(path: Path) -> None:
    """Raise InputError for a file or folder that ITK would take for raw voxels of a Bruker scanner."""
    folder = path if path.is_dir() else path.parent
    if (folder / BRUKER).exists():
        raise InputError(
            f"{path.name}: beside it lies a file called {BRUKER}, by which it would be read as raw voxels of a Bruker scanner: "
            "put the image into a folder without one, or convert the scan to NIfTI."
        )


def _beside(header: Path, names: Iterable[str]) -> tuple[Path, ...]:
    """The files of these names beside the header, each once; raises InputError for any that would be another file."""
    places = {header.parent.resolve(), header.resolve().parent}
    found: dict[Path, None] = {}
    for name in names:
        data = header.parent / name
        if not _is_plain(name) or "\\" in header.name:  # MetaIO takes a backslash in the header's own name for a folder, too
            raise _elsewhere(header)
        try:
            kind = data.stat().st_mode
        except OSError:
            raise InputError(
                f"{header.name}: a file of its voxels is not beside it: copy both into one folder, or convert it to NIfTI."
            ) from None
        if not stat.S_ISREG(kind) or data.resolve().parent not in places or data.samefile(header):
            raise _elsewhere(header)
        found[data] = None
    return tuple(found)


def _is_plain(name: str) -> bool:
    """True for a name that every reader looks up beside the header: "-" is standard input, "C:" a drive, "~" a home."""
    odd = ":" in name or name.startswith(("~", "-")) or any(sign < " " or sign == "\x7f" for sign in name)
    return is_plain_name(name) and not odd and name == name.strip() and name[-1].isascii()


def _elsewhere(header: Path) -> InputError:
    return InputError(
        f"{header.name}: its voxels would be read from somewhere else than a file beside it: put both files into one folder, "
        "without links, and let the header name the other by its name alone, or convert it to NIfTI."
    )
