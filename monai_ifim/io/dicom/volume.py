"""`DicomVolume`: the instances that make one volume, in the order of their places."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.dicom.spacing import GUESSED_SIZES
from monai_ifim.io.dicom.values import PixelValues
from monai_ifim.io.errors import InputError
from monai_ifim.io.reading import Reading
from monai_ifim.io.source import ValueChoice

Array = npt.NDArray[np.float64]

SAME_PLACE = 1e-3  # mm within which two slices lie at one place


@dataclass(frozen=True)
class DicomVolume:
    """Instances that make one volume, in the order of their places.

    key: the series UID (a digest if it has not the form of a UID), with "#2" and so on if it holds several. positions: LPS
    mm of each slice's first voxel [slices, 3], orientation: direction cosines of rows and columns [6], spacing: mm between
    columns and rows; None if the headers do not state them. size: columns and rows. Slices of a multi-frame file are in no volume
    with others: all of them in the order of the file, or those that frames lists (numbers of frames, from 0). values: how the
    stored values become those of the volume, None for colours; choice: which of them is asked for, None if it is left to the
    reader. disagreeing: attributes that say that the files are not all of one patient, study and frame of reference. complaint:
    why the slices are not of one grid (they lie at one place and were not told apart, or are turned), and the cure. reading: what
    was decided in making the volume of its files. mosaic: how the picture of its only file is taken apart into the slices, or why
    it cannot be; None if it is no mosaic. thickness: of the first slice in mm, None if it states none.
    """

    key: str
    files: tuple[Path, ...]
    modality: str
    size: tuple[int, int]
    slices: int
    positions: Array | None = None
    orientation: Array | None = None
    spacing: tuple[float, float] | None = None
    values: PixelValues | None = None
    choice: ValueChoice | None = None
    disagreeing: tuple[str, ...] = ()
    reading: Reading = field(default_factory=Reading)
    thickness: float | None = None
    frames: tuple[int, ...] | None = None
    complaint: str = ""
    mosaic: Mosaic | None = None

    @property
    def inverted_by_itk(self) -> bool:
        """True for MONOCHROME1, which ITK inverts within the stored bits."""
        return self.values is not None and any(self.values.bright_is_low)

    @property
    def series(self) -> str:
        """The series UID."""
        return self.key.partition("#")[0]

    def facts(self) -> str:
        """Modality, size, count, spacing and key: enough to tell volumes apart, and nothing personal."""
        columns, rows = self.size
        gap = "" if self.positions is None or len(self.positions) < 2 else f" x {self._gap():.3g}"
        spacing = ", no Pixel Spacing"
        if self.spacing is not None and self.reading.pixel_spacing not in GUESSED_SIZES:
            spacing = f", {self.spacing[0]:.3g} x {self.spacing[1]:.3g}{gap} mm"
        place = ", no position" if self.positions is None else ""
        return f"{self.modality or 'no modality'}, {columns} x {rows}, {self.slices_in_words}{spacing}{place}: {self.key}"

    @property
    def slices_in_words(self) -> str:
        """The number of slices, such as "1 slice"."""
        return f"{self.slices} slice{'' if self.slices == 1 else 's'}"

    def _gap(self) -> float:
        if self.positions is None:
            return 0.0
        return float(np.linalg.norm(self.positions[-1] - self.positions[0])) / max(1, len(self.positions) - 1)


def check_one_grid(name: str, volume: DicomVolume) -> None:
    """Raise InputError for slices that were not told apart, or are turned against each other (`DicomVolume.complaint`).

    name: what the message calls the volume.
    """
    if volume.complaint:
        raise InputError(f"{name}: {volume.complaint}.")
