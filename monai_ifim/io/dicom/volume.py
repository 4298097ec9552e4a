"""`DicomVolume`: the instances that make one volume, in the order of their places."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.reading import Reading

Array = npt.NDArray[np.float64]

SAME_PLACE = 1e-3  # mm within which two slices lie at one place


@dataclass(frozen=True)
class DicomVolume:
    """Instances that make one volume, in the order of their places.

    key: the series UID (a digest if it has not the form of a UID), with "#2" and so on if it holds several. positions: LPS
    mm of each slice's first voxel [slices, 3], orientation: direction cosines of rows and columns [6], spacing: mm between
    columns and rows; None if the headers do not state them. size: columns and rows. A multi-frame file is a volume by
    itself, its frames in the order of the file; rescale: slope and intercept of each frame [slices, 2], None if all share
    them. disagreeing: attributes that say that the files are not all of one patient, study and frame of reference. reading: what
    was decided in making the volume of its files. mosaic: how the picture of its only file is taken apart into the slices, or why
    it cannot be; None if it is no mosaic.
    """

    key: str
    files: tuple[Path, ...]
    modality: str
    size: tuple[int, int]
    slices: int
    positions: Array | None = None
    orientation: Array | None = None
    spacing: tuple[float, float] | None = None
    rescale: Array | None = None
    disagreeing: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    mosaic: Mosaic | None = None

    @property
    def series(self) -> str:
        """The series UID."""
        return self.key.partition("#")[0]

    def facts(self) -> str:
        """Modality, size, spacing, count and key: enough to tell volumes apart, and nothing personal."""
        columns, rows = self.size
        gap = "" if self.positions is None or len(self.positions) < 2 else f" x {self._gap():.3g}"
        spacing = "" if self.spacing is None else f", {self.spacing[0]:.3g} x {self.spacing[1]:.3g}{gap} mm"
        count = f"{self.slices} slice{'' if self.slices == 1 else 's'}"
        return f"{self.modality or 'no modality'}, {columns} x {rows}, {count}{spacing}: {self.key}"

    def _gap(self) -> float:
        if self.positions is None:
            return 0.0
        return float(np.linalg.norm(self.positions[-1] - self.positions[0])) / max(1, len(self.positions) - 1)
