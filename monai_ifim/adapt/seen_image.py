"""What is known of an image that a network is given, to compare with what its bundle was made for (`io.intended_use`)."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_ifim.io import OpenedSource
from monai_ifim.io.dicom.spacing import GUESSED_SIZES
from monai_ifim.io.geometry import is_photograph
from monai_ifim.io.intended_use import SeenImage


def seen_image(img: MetaTensor, opened: OpenedSource | None, prepared: bool) -> SeenImage:
    """Modality, voxels and values of an image [channel, *spatial].

    opened: its input; None where its files are not there, which leaves the modality out. prepared: it is what the network
    sees; of a scan as its file holds it, the modality alone says something. The size of voxels is left out where it is not known.
    """
    modality = "" if opened is None else opened.modality
    if not prepared:
        return SeenImage(modality)
    guessed = opened is not None and opened.reading.pixel_spacing in GUESSED_SIZES
    axes = img.affine[:3, : img.ndim - 1].to(torch.float64)
    spacing = None if guessed or is_photograph(img.meta) else tuple(torch.linalg.vector_norm(axes, dim=0).tolist())
    return SeenImage(modality, spacing, img.as_subclass(Tensor).detach().cpu().numpy())
