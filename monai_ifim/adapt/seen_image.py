"""What is known of an image that a network is given, to compare with what its bundle was made for (`io.intended_use`)."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_ifim.io import OpenedSource
from monai_ifim.io.dicom.spacing import GUESSED_SIZES
from monai_ifim.io.geometry import is_photograph
from monai_ifim.io.intended_use import SeenImage


def seen_image(img: MetaTensor, opened: OpenedSource, prepared: bool) -> SeenImage:
    """Modality, voxels and values of an image [channel, *spatial].

    prepared: it is what the network sees; of a scan as its file holds it, the modality alone says something. The size of voxels
    is left out where no file states it.
    """
    if not prepared:
        return SeenImage(opened.modality)
    unplaced = is_photograph(img.meta) or opened.reading.pixel_spacing in GUESSED_SIZES
    axes = img.affine[:3, : img.ndim - 1].to(torch.float64)
    spacing = None if unplaced else tuple(torch.linalg.vector_norm(axes, dim=0).tolist())
    return SeenImage(opened.modality, spacing, img.as_subclass(Tensor).detach().cpu().numpy())
