"""Demonstration inputs that need neither a download nor own data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PlantedLesion", "demo_slice", "demo_volume", "planted_lesion"]

_DEMO_SEED = 1
_DEMO_INDEX = 1  # odd, so the volume holds a lesion
_PLANTED_SEED = 6  # a lesion of a medium size


@dataclass(frozen=True)
class PlantedLesion:
    """A volume with a lesion, and the truth about it.

    Args:
        path: of the volume.
        centre: of the lesion, in mm to the right, to the front and upwards (RAS).
        volume: of the lesion's mask, in ml.
        mask: 1 in the voxels of the lesion, uint8 ``[*shape]`` on the grid of the volume.
    """

    path: Path
    centre: tuple[float, ...]
    volume: float
    mask: Tensor


def demo_slice() -> Path:
    """Path of a small CT slice (128 x 128, one DICOM file) that comes with pydicom; nothing is downloaded.

    Raises:
        FileNotFoundError: where the installed pydicom lacks its test files.
    """
    from pydicom.data import get_testdata_file

    found = get_testdata_file("CT_small.dcm", download=False)
    if not isinstance(found, str):
        raise FileNotFoundError("pydicom's CT_small.dcm is not installed; reinstall pydicom from its wheel")
    return Path(found)


def demo_volume(directory: str | os.PathLike[str], root: Path | None = None) -> Path:
    """Write a lumpy volume with a lesion, always the same one, and return the file's path.

    The volume has the default parameters of :class:`~monai_ifim.evaluation.lumpy.images.LumpyParameters`, those of the bundle
    ``lumpy_lesion_detection_3d``: float32 ``[32, 32, 32]``, 2 mm voxels. A file that is there already stays.

    Args:
        directory: folder for the file; made where missing.
        root: folder from which on no link is followed, by default `directory` itself.
    """
    from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters, write_image

    target = Path(directory) / "lumpy_lesion.nii.gz"
    if target.is_file():
        return target
    dataset = LumpyDataset(LumpyParameters(), length=_DEMO_INDEX + 1, seed=_DEMO_SEED)
    return write_image(dataset.volume(_DEMO_INDEX).image, target, spacing=2.0, root=root)


def planted_lesion(directory: str | os.PathLike[str], root: Path | None = None) -> PlantedLesion:
    """Write a lumpy volume with a lesion to segment, always the same one, and return it with the truth.

    The volume is one of those that the bundle ``lumpy_segmentation_3d`` was trained for and has not seen: float32
    ``[32, 32, 32]``, 2 mm voxels. A file that is there already stays.

    Args:
        directory: folder for the file; made where missing.
        root: folder from which on no link is followed, by default `directory` itself.
    """
    from monai_ifim.evaluation.lumpy.images import SPACING, grid_affine, write_image
    from monai_ifim.evaluation.lumpy.lesion_masks import LESION_VOLUMES, VOXEL_ML, LesionMaskDataset

    drawn = LesionMaskDataset(LESION_VOLUMES, length=_DEMO_INDEX + 1, seed=_PLANTED_SEED).segmented(_DEMO_INDEX)
    target = Path(directory) / "planted_lesion.nii.gz"
    if not target.is_file():
        write_image(drawn.image, target, spacing=SPACING, root=root)
    centre = grid_affine(3, SPACING) @ [*drawn.place, 1]
    return PlantedLesion(target, tuple(centre[:3].tolist()), float(drawn.mask.sum()) * VOXEL_ML, drawn.mask)
