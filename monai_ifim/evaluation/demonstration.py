"""Demonstration inputs that need neither a download nor own data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "HEAD_CLASS",
    "HEAD_WINDOW",
    "PlantedLesion",
    "demo_head",
    "demo_lesion",
    "demo_slice",
    "demo_volume",
    "planted_lesion",
]

HEAD_WINDOW = (-1024.0, 1024.0)  # Hounsfield units of `demo_head`: all that tissue has, without the padding around the scan
HEAD_CLASS = "HeadCT"  # what it is, among the classes of the bundle mednist_classification
_HEAD_FILE = "J2K_pixelrep_mismatch.dcm"  # a plain CT of the head, with an odd header that all readers put right
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
    return _pydicom_file("CT_small.dcm")


def demo_head(directory: str | os.PathLike[str], root: Path | None = None) -> Path:
    """Write a CT slice of a head that comes with pydicom as it is looked at, and return the file's path; nothing is downloaded.

    The values are Hounsfield units, clipped to HEAD_WINDOW: the pictures that ``mednist_classification`` was trained on were
    windowed, and without a window the scanner's padding takes a quarter of the grey values. 512 x 512 pixels of 0.43 mm. A file
    that is there already stays.

    Args:
        directory: folder for the file; made where missing.
        root: folder from which on no link is followed, by default `directory` itself.

    Raises:
        FileNotFoundError: where the installed pydicom lacks its test files.
    """
    from monai.data import ITKReader
    from monai.transforms import LoadImage

    from monai_ifim.io.nifti import write_volume

    target = Path(directory) / "head_ct.nii.gz"
    if not target.is_file():
        scan = LoadImage(ITKReader)(_pydicom_file(_HEAD_FILE))
        write_volume(target, scan.clamp(*HEAD_WINDOW).numpy(), scan.affine.numpy(), root or target.parent)
    return target


def _pydicom_file(name: str) -> Path:
    from pydicom.data import get_testdata_file

    found = get_testdata_file(name, download=False)
    if not isinstance(found, str):
        raise FileNotFoundError(f"pydicom's {name} is not installed; reinstall pydicom from its wheel")
    return Path(found)


def demo_volume(directory: str | os.PathLike[str], root: Path | None = None) -> Path:
    """Write a lumpy volume with a lesion, always the same one, and return the file's path.

    The volume has the default parameters of :class:`~monai_ifim.evaluation.lumpy.images.LumpyParameters`, those of the bundle
    ``lumpy_lesion_detection_3d``: float32 ``[32, 32, 32]``, 2 mm voxels. A file that is there already stays.

    Args:
        directory: folder for the file; made where missing.
        root: folder from which on no link is followed, by default `directory` itself.
    """
    return demo_lesion(directory, root).path


def demo_lesion(directory: str | os.PathLike[str], root: Path | None = None) -> PlantedLesion:
    """Write the volume of `demo_volume`, and return it with the place of its lesion.

    The mask holds the voxels where the lesion adds half of its amplitude or more.

    Args:
        directory: folder for the file; made where missing.
        root: folder from which on no link is followed, by default `directory` itself.
    """
    from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters
    from monai_ifim.evaluation.lumpy.lesion_masks import half_maximum

    task = LumpyParameters()
    drawn = LumpyDataset(task, length=_DEMO_INDEX + 1, seed=_DEMO_SEED).volume(_DEMO_INDEX)
    return _planted(Path(directory) / "lumpy_lesion.nii.gz", drawn.image, drawn.place, half_maximum(task, drawn.place), root)


def planted_lesion(directory: str | os.PathLike[str], root: Path | None = None) -> PlantedLesion:
    """Write a lumpy volume with a lesion to segment, always the same one, and return it with the truth.

    The volume is one of those that the bundle ``lumpy_segmentation_3d`` was trained for and has not seen: float32
    ``[32, 32, 32]``, 2 mm voxels. A file that is there already stays.

    Args:
        directory: folder for the file; made where missing.
        root: folder from which on no link is followed, by default `directory` itself.
    """
    from monai_ifim.evaluation.lumpy.lesion_masks import LESION_VOLUMES, LesionMaskDataset

    drawn = LesionMaskDataset(LESION_VOLUMES, length=_DEMO_INDEX + 1, seed=_PLANTED_SEED).segmented(_DEMO_INDEX)
    return _planted(Path(directory) / "planted_lesion.nii.gz", drawn.image, drawn.place, drawn.mask, root)


def _planted(target: Path, image: Tensor, place: tuple[int, ...], mask: Tensor, root: Path | None) -> PlantedLesion:
    """Write the volume unless it is there, and say where its lesion is."""
    from monai_ifim.evaluation.lumpy.images import SPACING, grid_affine, write_image
    from monai_ifim.evaluation.lumpy.lesion_masks import VOXEL_ML

    if not target.is_file():
        write_image(image, target, spacing=SPACING, root=root)
    centre = grid_affine(len(place), SPACING) @ [*place, 1]
    return PlantedLesion(target, tuple(centre[:3].tolist()), float(mask.sum()) * VOXEL_ML, mask)
