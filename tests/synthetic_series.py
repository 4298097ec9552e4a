"""DICOM series made on the spot, whose values tell their places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

Array = npt.NDArray[Any]
COLUMNS, ROWS, SPACING, GAP = 7, 5, (0.8, 1.3), 2.5  # spacing between columns, between rows


def _rotation(vector: tuple[float, float, float]) -> Array:
    """Rodrigues' formula."""
    angle = float(np.linalg.norm(vector))
    x, y, z = np.asarray(vector) / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


ORIENTATIONS = {
    "axial": np.eye(3),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "sagittal": np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]]),
    "oblique": _rotation((0.3, -0.5, 0.8)),
}


class Series:
    """Slices with values that tell their place, written as CT files in an order that is not theirs."""

    def __init__(self, axes: Array, slices: int = 6, origin: tuple[float, ...] = (-31.0, 12.5, 70.25)) -> None:
        self.axes, self.origin = axes, np.array(origin)  # columns: directions of columns, rows and slices, LPS
        self.values = np.random.default_rng(3).integers(-900, 2000, (COLUMNS, ROWS, slices)).astype(np.int16)
        self.places = GAP * np.arange(slices)
        self.uid, self.study = generate_uid(), generate_uid()

    def slices(self) -> list[Dataset]:
        return [self._slice(k) for k in range(self.values.shape[2])]

    def _slice(self, k: int) -> Dataset:
        image = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
        image.SeriesInstanceUID, image.StudyInstanceUID = self.uid, self.study
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        image.Columns, image.Rows = COLUMNS, ROWS
        image.PixelSpacing = [SPACING[1], SPACING[0]]
        image.ImageOrientationPatient = [*self.axes[:, 0], *self.axes[:, 1]]
        image.ImagePositionPatient = [*(self.origin + self.places[k] * self.axes[:, 2])]
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.PixelData = self.values[:, :, k].T.tobytes()
        return image

    def world(self, voxels: Array) -> Array:
        """RAS mm of voxels [n, 3]."""
        lps = self.origin + voxels * np.array([*SPACING, GAP]) @ self.axes.T
        return lps * np.array([-1.0, -1.0, 1.0])


def write(folder: Path, slices: list[Dataset]) -> Path:
    """Names in an order that has nothing to do with places."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(5).permutation(len(slices))
    for name, k in enumerate(order):
        slices[k].save_as(folder / f"IM{name:03d}")
    return folder
