"""Orthogonal split of an image along orthonormal eigenvectors, and orthonormalisation of the eigenvectors."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.errors import ImageError
from monai_ifim.core.memory.allocation import in_large_pages
from monai_ifim.core.memory.blocks import blocks
from monai_ifim.core.operator.rows import float64_device

ROUNDING = 32.0  # tolerance of inner products, in units of the vectors' eps
NEW = 0.5  # share of a unit vector's squared length that must be orthogonal to the vectors before it


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
    high, low = (in_large_pages(torch.empty_like(flat)) for _ in range(2))
    for start, stop in windows:
        part = torch.einsum("bk,bkd->bd", shares, basis[:, :, start:stop].to(wide))
        high[:, start:stop] = part.to(flat.dtype)
        low[:, start:stop] = (flat[:, start:stop].to(wide) - part).to(flat.dtype)
    return high.reshape(image.shape), low.reshape(image.shape)


def orthonormalise(vectors: Tensor, kept: list[int]) -> list[int]:
    """Make the first `kept` unit vectors of each image orthonormal to rounding, in order (Gram-Schmidt).

    vectors: [B, k, D], changed in place. A combination of rows that nearly cancel loses digits and is no longer orthogonal to
    the others. A vector mostly in the span of those before it is set to zero, with all that follow. Returns the number of
    vectors kept for each image.
    """
    identity = torch.eye(vectors.shape[1], dtype=torch.float64, device="cpu")
    counts = list(kept)
    for b, gram in enumerate(_inner_products(vectors).cpu()):
        count = counts[b]
        wanted, found = identity[:count, :count], gram[:count, :count]
        if count == 0 or float((found - wanted).abs().max()) <= ROUNDING * torch.finfo(vectors.dtype).eps:
            continue
        root, failed = torch.linalg.cholesky_ex(found)
        sound = int(failed) - 1 if int(failed) else count
        counts[b] = int((root.diagonal()[:sound].square() > NEW).int().cumprod(0).sum())
        _combine(vectors[b], torch.linalg.inv(root[: counts[b], : counts[b]]))
    return counts


def _inner_products(vectors: Tensor) -> Tensor:
    """Inner products of the vectors of each image, [B, k, k] float64."""
    batch, count, size = vectors.shape
    device = float64_device(vectors)
    total = torch.zeros(batch, count, count, dtype=torch.float64, device=device)
    for start, stop in blocks(size, max(batch * count, 1)):
        block = vectors[:, :, start:stop].to(device).to(torch.float64)
        total.baddbmm_(block, block.transpose(1, 2))
    return total


def _combine(vectors: Tensor, weights: Tensor) -> None:
    """Replace the first n vectors [k, D] by their combinations, weights [n, n] float64, and the others by zero."""
    count, device = weights.shape[0], float64_device(vectors)
    for start, stop in blocks(vectors.shape[1], 2 * vectors.shape[0]):
        block = vectors[:count, start:stop].to(device).to(torch.float64)
        vectors[:count, start:stop] = (weights.to(device) @ block).to(vectors)
    vectors[count:] = 0.0
