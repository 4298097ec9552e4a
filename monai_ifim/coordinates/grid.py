"""The grid of an image in millimetres, and what a family may assume of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_ifim.core.coordinates import Place
from monai_ifim.core.errors import IFIMError

Matrix = npt.NDArray[np.float64]
SHEAR = 1e-3  # cosine of the angle between two axes from which on they count as oblique to one another


@dataclass(frozen=True)
class Grid:
    """Voxel indices to a frame in millimetres, [n + 1, n + 1] for n spatial axes; the unit of its lengths.

    Of three axes the frame is the patient's, RAS. Of two it lies in the image's plane: its first axis is the image's first.
    """

    affine: Matrix
    unit: str

    @classmethod
    def of(cls, affine: Any, image: Tensor, place: Place) -> Grid:
        """The grid of an image [channel, *spatial] by its own affine, else by that of its place.

        Without one an image of two axes is counted in pixels; raises IFIMError for a volume, whose voxels are rarely cubes.
        """
        axes, known = image.ndim - 1, affine if affine is not None else place.affine
        if known is None and axes == 2:
            return cls(np.eye(3), "pixel")
        if known is None:
            raise IFIMError(
                "the size and direction of the voxels of this volume are not known, so that millimetres and patient axes have no "
                "meaning: give it as NIfTI or DICOM, or, in Python, its affine (voxel indices to RAS mm), such as "
                "Placement(affine=...) or Acquisition(affine=...)."
            )
        matrix = as_affine(known)
        if axes == 3:
            return cls(matrix, "mm")
        plane = np.eye(3)
        plane[:2, :2] = np.linalg.qr(matrix[:3, :2])[1]
        plane[:2, :2] *= np.sign(np.diag(plane)[:2])[:, None]
        return cls(plane, "mm")

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbours along each axis; raises IFIMError for a sheared grid, whose axes are oblique to one another."""
        columns = self.affine[:-1, :-1]
        lengths = np.linalg.norm(columns, axis=0)
        angles = (columns / lengths).T @ (columns / lengths) - np.eye(len(lengths))
        if np.abs(angles).max() > SHEAR:
            raise IFIMError("the axes of this grid are not at right angles: resample the image onto a grid whose axes are.")
        return tuple(map(float, lengths))

    def centre(self, sizes: tuple[int, ...]) -> Matrix:
        """The centre of an image of these sizes, in the frame."""
        middle: Matrix = self.affine @ np.array([*((size - 1) / 2 for size in sizes), 1.0])
        return middle[:-1]

    def positions(self, sizes: tuple[int, ...]) -> Matrix:
        """Position of each voxel relative to the centre, [n, *sizes]."""
        indices = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in sizes), indexing="ij")
        return np.tensordot(self.affine[:-1, :-1], np.stack(indices), axes=1)


def as_affine(affine: Any) -> Matrix:
    """A matrix [4, 4] float64; raises IFIMError for anything else, and for one that is singular."""
    matrix = np.asarray(torch.as_tensor(affine).detach().cpu(), dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) == 0:
        raise IFIMError("the affine is no invertible matrix [4, 4], voxel indices to RAS mm: pass that of the image's file.")
    return matrix


def float64_values(image: Tensor) -> Matrix:
    """The values of an image, float64."""
    return np.asarray(image.detach().cpu().to(torch.float64))
