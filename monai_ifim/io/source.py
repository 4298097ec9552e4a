"""An input by its path: its name for files made from it, and the hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ifim.io.case_names import name_of
from monai_ifim.io.errors import InputError

IMAGE_SUFFIXES = (
    ".nii.gz", ".nii", ".dcm", ".ima", ".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".png", ".jpg", ".jpeg", ".bmp",
    ".tif", ".tiff", ".npy", ".npz", ".mgz", ".mgh.gz", ".mgh", ".head", ".brik.gz", ".brik", ".hdr.gz", ".img.gz",
)  # fmt: skip


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
        """Name for files made from it: `name_in` without folders."""
        return self.name_in(())

    def name_in(self, folders: Sequence[str]) -> str:
        """Name for files made from it, as `case_names.name_of`: folders, base name without suffix, series and frame."""
        name = self.path.name
        readable = name_of([*folders, name[: len(name) - len(self.suffix)]])
        if self.series is not None:
            readable += f"_series-{hashlib.sha256(self.series.encode()).hexdigest()[:8]}"
        return readable if self.frame is None else f"{readable}_frame-{self.frame:03d}"


def there(path: Path) -> bool:
    """True if `path` exists; raises InputError if it cannot be looked up (no valid name, no permission)."""
    try:
        return path.exists()
    except OSError as error:
        raise InputError(f"{path.name[:40]}: cannot be looked up ({error.strerror}): correct the path.") from error
