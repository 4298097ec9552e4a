"""What MONAI's metadata say of an image besides its values: how many ml a voxel takes up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from monai_ifim.adapt.mask_file import MaskFile
from monai_ifim.core.answer import AnswerFacts
from monai_ifim.core.heads.answer_mask import AnswerMask

MM3_PER_ML = 1000.0


def voxel_volume(image: Tensor) -> float | None:
    """ml that a voxel of a volume [channel, H, W, D] takes up, by its affine; None where that is not known.

    It is not for an image of two axes, for a plain tensor, and for an affine that no reader gave and that is the identity.
    """
    if not isinstance(image, MetaTensor) or image.ndim != 4:
        return None
    return _volume_of(image.affine, image.meta.get("original_affine") is not None)


def facts_of_images(
    images: Sequence[MetaTensor],
    class_names: Sequence[str] = (),
    mask: AnswerMask | None = None,
    preprocessing: Compose | None = None,
) -> AnswerFacts:
    """The facts of network inputs [channel, *spatial] of one size; volumes are in voxels unless the spacing of all is known.

    mask: of the settings; one from a file is carried to the grid of the images. Raises as `MaskFile.of_image`.
    """
    volumes = [volume for volume in map(voxel_volume, images) if volume is not None]
    known = torch.tensor(volumes, dtype=torch.float64) if len(volumes) == len(images) else None
    carried = None
    if isinstance(mask, MaskFile):
        carried = torch.stack([mask.of_image(image, preprocessing) for image in images])
    return AnswerFacts(tuple(images[0].shape[1:]), known, tuple(class_names), carried)


def facts_of_batch(batch: Tensor, class_names: Sequence[str] = ()) -> AnswerFacts:
    """The facts of a batch of network inputs [B, channel, *spatial] that MONAI collated, or of a plain tensor."""
    grid, names = tuple(batch.shape[2:]), tuple(class_names)
    if not isinstance(batch, MetaTensor) or batch.ndim != 5:
        return AnswerFacts(grid, None, names)
    affines = batch.affine if batch.affine.ndim == 3 else batch.affine.expand(batch.shape[0], 4, 4)
    stated = batch.meta.get("original_affine") is not None
    volumes = [volume for volume in (_volume_of(affine, stated) for affine in affines) if volume is not None]
    known = torch.tensor(volumes, dtype=torch.float64) if len(volumes) == batch.shape[0] else None
    return AnswerFacts(grid, known, names)


def _volume_of(affine: Tensor, stated: bool) -> float | None:
    """ml from an affine in mm; stated: a reader gave it."""
    matrix = np.asarray(affine.detach().cpu(), dtype=np.float64)
    if matrix.shape != (4, 4) or (not stated and np.array_equal(matrix, np.eye(4))):
        return None
    volume = abs(float(np.linalg.det(matrix[:3, :3]))) / MM3_PER_ML
    return volume if 0 < volume < float("inf") else None
