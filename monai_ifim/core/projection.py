"""Orthogonal split of an image along a set of orthonormal eigenvectors."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.errors import ImageError
from monai_ifim.core.rows import blocks


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
    basis, flat = eigenvectors.flatten(2), image.flatten(1)
    windows = blocks(flat.shape[1], basis.shape[0] * (basis.shape[1] + 1))
    shares = torch.zeros(basis.shape[:2], dtype=wide, device=image.device)
    for start, stop in windows:
        shares += torch.einsum("bkd,bd->bk", basis[:, :, start:stop].to(wide), flat[:, start:stop].to(wide))
    high, low = torch.empty_like(flat), torch.empty_like(flat)
    for start, stop in windows:
        part = torch.einsum("bk,bkd->bd", shares, basis[:, :, start:stop].to(wide))
        high[:, start:stop] = part.to(flat.dtype)
        low[:, start:stop] = (flat[:, start:stop].to(wide) - part).to(flat.dtype)
    return high.reshape(image.shape), low.reshape(image.shape)
