"""Orthogonal split of an image along a set of orthonormal eigenvectors."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.errors import ImageError


def split(eigenvectors: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """(high, low) with high = U U^T image and low = image - high.

    eigenvectors: [B, k, channel, *spatial], orthonormal or zero. image: [B, channel, *spatial]. Raises ImageError for an
    image of another shape, device or an integer dtype. Sums run in float64 (in the image's dtype where the device lacks it).
    """
    if not image.is_floating_point():
        raise ImageError(f"the image is {image.dtype}: convert it, image.float().")
    expected = eigenvectors.shape[:1] + eigenvectors.shape[2:]
    if image.shape != expected:
        raise ImageError(f"the image has shape {tuple(image.shape)}; this subspace splits images of {tuple(expected)}.")
    if image.device != eigenvectors.device:
        raise ImageError(f"the image is on {image.device}, the eigenvectors on {eigenvectors.device}: image.to(device).")
    wide = torch.float32 if image.device.type == "mps" else torch.float64
    basis = eigenvectors.flatten(2)
    flat = image.flatten(1).to(wide)
    high = torch.zeros_like(flat)
    for i in range(basis.shape[1]):
        vector = basis[:, i].to(wide)
        high += (vector * flat).sum(1, keepdim=True) * vector
    low = flat - high
    return high.to(image.dtype).reshape(image.shape), low.to(image.dtype).reshape(image.shape)
