"""nibabel's and ITK's side: single files of the formats that they read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np

from benchmarks.geometry.volume import Array, Refused, Volume, volume_of
from monai_ifim.io.errors import unquoted

NIBABEL = "nibabel"
ITK = "ITK"
OF_NIBABEL = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz", ".mgz", ".mgh", ".head", ".brik", ".par", ".rec", ".mnc")
OF_ITK = (".nrrd", ".nhdr", ".mha", ".mhd", ".gipl", ".vtk")
HALVES = {".img": ".hdr", ".img.gz": ".hdr.gz", ".brik": ".head", ".brik.gz": ".head", ".rec": ".par"}  # voxels by another's name
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def reader_of(path: Path) -> tuple[str, Callable[[Path, int | None], Volume | Refused]] | None:
    """The library that reads files of such a name, and how; None for other names."""
    name = path.name.lower()
    if name.endswith(OF_NIBABEL):
        return NIBABEL, read_nibabel
    return (ITK, read_itk) if name.endswith(OF_ITK) else None


def read_nibabel(path: Path, frame: int | None) -> Volume | Refused:
    """A file, or one frame of it, as nibabel reads it."""
    try:
        image: Any = nib.load(path)
        values = np.asanyarray(image.dataobj)
        return volume_of(values if frame is None else values[..., frame], image.affine)
    except Exception as error:
        return Refused(unquoted(error))


def read_itk(path: Path, frame: int | None) -> Volume | Refused:
    """A file as ITK reads it, turned from LPS to RAS; frame: along the fourth axis."""
    try:
        image = itk.imread(str(path))
        values: Array = itk.array_from_image(image)
        dims = image.GetImageDimension()
        values = values.transpose(*reversed(range(dims)), *range(dims, values.ndim))
        if dims > 3:
            values = values.reshape(*values.shape[:3], -1)[..., frame or 0]
        return volume_of(values, _affine(image, min(dims, 3)))
    except Exception as error:
        return Refused(unquoted(error))


def _affine(image: Any, dims: int) -> Array:
    affine = np.eye(4)
    directions = itk.array_from_matrix(image.GetDirection())[:dims, :dims]
    affine[:dims, :dims] = directions * np.array(image.GetSpacing())[:dims]
    affine[:dims, 3] = np.array(image.GetOrigin())[:dims]
    return np.asarray(RAS_FROM_LPS @ affine)


def is_second_half(path: Path) -> bool:
    """True for the voxels of a pair whose header lies beside them, by the header's name."""
    name = path.name.lower()
    ends = next((end for end in HALVES if name.endswith(end)), None)
    if ends is None:
        return False
    wanted = {name[: -len(ends)] + suffix for suffix in (".hdr", ".hdr.gz", ".head", ".par")}
    return any(other.name.lower() in wanted for other in path.parent.iterdir())
