"""An input by its path: its name for files made from it, and the hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from monai_ifim.io.case_names import name_of
from monai_ifim.io.errors import InputError
from monai_ifim.options import READING, Monochrome1, PixelValuesBy

IMAGE_SUFFIXES = (
    ".nii.gz", ".nii", ".dcm", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".png", ".jpg", ".jpeg", ".bmp",
    ".tif", ".tiff", ".npy", ".npz", ".mgz", ".mgh.gz", ".mgh", ".head", ".brik.gz", ".brik", ".hdr.gz", ".img.gz",
)  # fmt: skip


@dataclass(frozen=True)
class ValueChoice:
    """Which values of a DICOM image are read, where its header leaves several.

    values: "header", those that it states, which is refused where it states two; "rescale", by Rescale Slope and Intercept or a
    Modality LUT, as other readers give them; "real-world", by its Real World Value Mapping. monochrome1: of an image whose
    smallest value is white and that is no CT, MR, PET or NM image: "reader", as the bundle's reader in MONAI gives it;
    "stored", as it is stored; "inverted". Raises InputError for another word.
    """

    values: PixelValuesBy = "header"
    monochrome1: Monochrome1 = "reader"

    def __post_init__(self) -> None:
        for name, kind in (("values", PixelValuesBy), ("monochrome1", Monochrome1)):
            given, words = getattr(self, name), get_args(kind)
            if given not in words:
                raise InputError(f"unknown {name} {given!r}: choose one of {', '.join(map(repr, words))}.")

    def described(self) -> dict[str, str]:
        """What differs from the default, as plain data; `ValueChoice(**described)` makes it again."""
        return {name: value for name, value in asdict(self).items() if value != READING[name].default}


@dataclass(frozen=True)
class Source:
    """One input: a file, or a folder that holds DICOM files.

    frame: which volume of a 4D file, or of a DICOM series of several volumes, from 0. series: which volume of a DICOM folder
    (`io.dicom.volume.DicomVolume.key`); None if there is only one. fix_geometry: resample an irregular DICOM volume onto an
    orthogonal, even grid. beside: further entries (key, value) of the image's data dictionary; a Path is a file. choice: which
    values of a DICOM image.
    """

    path: Path
    frame: int | None = None
    series: str | None = None
    fix_geometry: bool = False
    beside: tuple[tuple[str, Any], ...] = ()
    choice: ValueChoice = ValueChoice()

    @property
    def suffix(self) -> str:
        """The suffix that names the file's format, for example ".nii.gz"; empty if there is none."""
        name = self.path.name
        found = (suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix) and len(name) > len(suffix))
        return next(found, "")

    @property
    def name(self) -> str:
        """Name for files made from it: `name_in` without folders."""
        return self.name_in(())

    def name_in(self, folders: Sequence[str]) -> str:
        """Name for files made from it, as `case_names.name_of`: folders, base name without suffix, series and frame."""
        name = self.path.name
        readable = name_of([*folders, name[: len(name) - len(self.suffix)]])
        if self.series is not None:
            readable += f"_series-{hashlib.sha256(self.series.encode()).hexdigest()[:8]}"
        return readable if self.frame is None else f"{readable}_frame-{self.frame:03d}"


def is_dangling(path: Path) -> bool:
    """True for a link to a file that is not there, as data sets have them whose files are fetched one by one."""
    return path.is_symlink() and not path.exists()


def not_fetched(name: str) -> InputError:
    """The error for a dangling link."""
    return InputError(
        f"{name}: a link to a file that is not there: fetch it (datalad get, git annex get), or leave the link out."
    )


def there(path: Path) -> bool:
    """True if `path` exists; raises InputError if it cannot be looked up (no valid name, no permission)."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path.name[:40]}: cannot be looked up ({error.strerror}): correct the path.") from error
