"""An input by its path: its name for files made from it, and the hash of its content."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ifim.io.errors import InputError

IMAGE_SUFFIXES = (
    ".nii.gz", ".nii", ".dcm", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".png", ".jpg", ".jpeg", ".bmp",
    ".tif", ".tiff", ".npy", ".npz",
)  # fmt: skip
LONGEST_NAME = 128  # characters; the names of a case's files are longer, and file systems take 255 bytes


@dataclass(frozen=True)
class Source:
    """One input: a file, or a folder that holds DICOM files.

    frame: which volume of a 4D file, from 0. series: which volume of a DICOM folder (`io.dicom.volumes.DicomVolume.key`); None
    if there is only one. fix_geometry: resample an irregular DICOM volume onto an orthogonal, even grid. beside: further entries
    (key, value) of the image's data dictionary; a Path is a file.
    """

    path: Path
    frame: int | None = None
    series: str | None = None
    fix_geometry: bool = False
    beside: tuple[tuple[str, Any], ...] = ()

    @property
    def suffix(self) -> str:
        """The suffix that names the file's format, for example ".nii.gz"; empty if there is none."""
        name = self.path.name
        found = (suffix for suffix in IMAGE_SUFFIXES if name.lower().endswith(suffix) and len(name) > len(suffix))
        return next(found, "")

    @property
    def name(self) -> str:
        """Name for files made from it: the base name without its suffix, letters, digits, dot, dash and underscore only."""
        name = self.path.name
        name = name[: len(name) - len(self.suffix)]
        cleaned = re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("._-")
        cleaned = bounded_name(cleaned or "case")
        if self.series is not None:
            cleaned += f"_series-{hashlib.sha256(self.series.encode()).hexdigest()[:8]}"
        return cleaned if self.frame is None else f"{cleaned}_frame-{self.frame:03d}"


def bounded_name(name: str) -> str:
    """The name; if it is longer than LONGEST_NAME, its beginning and eight hexadecimal digits of the hash of all of it."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def there(path: Path) -> bool:
    """True if `path` exists; raises InputError if it cannot be looked up (no valid name, no permission)."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path.name[:40]}: cannot be looked up ({error.strerror}): correct the path.") from error
