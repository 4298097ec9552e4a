"""Lesions of random size in lumpy volumes, with masks: a segmentation task whose truth is exact.

The lesion is a Gaussian. Its mask holds the voxels where it adds half of its amplitude or more: a ball of radius
sqrt(2 ln 2) = 1.18 of its standard deviation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from monai_ifim.evaluation.lumpy.images import SPACING, LumpyDataset, LumpyParameters, draw_volume, lesion_template

__all__ = ["LEAST_WIDTH", "LESION_VOLUMES", "VOXEL_ML", "LesionMaskDataset", "SegmentedVolume", "half_maximum"]

# the task of the bundle lumpy_segmentation_3d: widths are of the largest and of the smallest lesion, in voxels
LESION_VOLUMES = LumpyParameters(lesion_amplitude=4.0, lesion_width=3.2)
LEAST_WIDTH = 1.6
VOXEL_ML = SPACING**3 / 1000  # of a volume that is written to a file


@dataclass(frozen=True)
class SegmentedVolume:
    """One random volume with its mask.

    Args:
        image: float32 ``[*shape]``, in grey values.
        mask: uint8 ``[*shape]``, 1 inside the lesion; 0 everywhere where there is none.
        place: voxel indices of the lesion's centre, or of where it would have been.
        width: standard deviation of the lesion in voxels, or what it would have been.
    """

    image: Tensor
    mask: Tensor
    place: tuple[int, ...]
    width: float


def half_maximum(parameters: LumpyParameters, place: tuple[int, ...]) -> Tensor:
    """Voxels where the lesion at `place` adds half of its amplitude or more: uint8 ``[*shape]``."""
    return (lesion_template(parameters, place) >= parameters.lesion_amplitude / 2).to(torch.uint8)


class LesionMaskDataset(LumpyDataset):
    """Volumes with (odd index) and without (even index) a lesion, and the lesion's mask, drawn when asked for.

    The standard deviation of the lesion is uniform between `least_width` and `parameters.lesion_width`. Item i depends on the
    arguments and i alone.

    Args:
        parameters: of the volumes; the lesion width is that of the widest lesion.
        length: number of volumes.
        seed: zero or more; sets of different seeds are independent.
        least_width: standard deviation of the smallest lesion, in voxels.

    Raises:
        ValueError: for a lesion without amplitude, which has no mask; for a least width that is not above zero and up to the
            largest; where length or seed is negative.
    """

    def __init__(self, parameters: LumpyParameters, length: int, seed: int, least_width: float = LEAST_WIDTH) -> None:
        super().__init__(parameters, length, seed)
        if parameters.lesion_amplitude == 0:
            raise ValueError("lesion_amplitude is 0; give one above zero, since a lesion that adds nothing has no mask")
        if not (math.isfinite(least_width) and 0 < least_width <= parameters.lesion_width):
            raise ValueError(f"least_width is {least_width}; give one above 0 and up to lesion_width, {parameters.lesion_width}")
        self.least_width = float(least_width)

    def segmented(self, index: int) -> SegmentedVolume:
        """Item with its truth; negative indices count from the end.

        Raises:
            IndexError: beyond the end.
        """
        position = self.position(index)
        generator = self.generator(position)
        share = float(torch.rand((), dtype=torch.float64, generator=generator))
        width = self.least_width + share * (self.parameters.lesion_width - self.least_width)
        sized = replace(self.parameters, lesion_width=width)
        drawn = draw_volume(sized, lesion=position % 2 == 1, generator=generator)
        mask = half_maximum(sized, drawn.place) if drawn.label else torch.zeros(tuple(sized.shape), dtype=torch.uint8)
        return SegmentedVolume(drawn.image, mask, drawn.place, width)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """``{"image": float32 [1, *shape], "label": uint8 [1, *shape]}``."""
        drawn = self.segmented(index)
        return {"image": drawn.image[None], "label": drawn.mask[None]}
