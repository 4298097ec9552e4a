"""How large an image, its components and the steps that an eigenvalue describes are, all on the grid of the decomposition."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core import Decomposition


def norms_of_image(decomposition: Decomposition, b: int) -> dict[str, Any]:
    """L2 norms of one image of a batch, of its components and its sensitivity, and what its locality radii are beside them.

    norms: "values", the number of voxels times channels, and the norms. locality_share: norm of the change that the largest
    trusted step along each eigenvector makes, over that of the image; locality_rms: its root mean square over all values, in
    the image's unit. These are None where no radius was computed, or the image is zero; None in their place is infinite.
    """
    image = decomposition.image[b]
    maps = {
        "input": image,
        "high": decomposition.high[b],
        "low": decomposition.low[b],
        "sensitivity": decomposition.sensitivity[b],
    }
    norms: dict[str, Any] = {name: _norm(values) for name, values in maps.items()}
    changes = _largest_changes(decomposition, b)
    whole = norms["input"]
    return {
        "norms": {"values": image.numel()} | norms,
        "locality_share": None if changes is None or not whole else [change and change / whole for change in changes],
        "locality_rms": None if changes is None else [change and change / math.sqrt(image.numel()) for change in changes],
    }


def _largest_changes(decomposition: Decomposition, b: int) -> list[float | None] | None:
    """Norm of the change of the image at the locality radius of each eigenvector kept; with a metric, one unit changes the image
    by the eigenimage, whose norm is not 1."""
    if decomposition.locality_radius is None:
        return None
    radii = decomposition.locality_radius[b, : int(decomposition.rank[b])].tolist()
    if decomposition.record.get("metric") is None:
        lengths = [1.0] * len(radii)
    else:
        lengths = [_norm(image) for image in decomposition.eigenimages[b, : len(radii)]]
    return [radius * length if math.isfinite(radius) else None for radius, length in zip(radii, lengths, strict=True)]


def _norm(values: Tensor) -> float:
    """The L2 norm in float64, of values whose squares may underflow."""
    largest = float(values.detach().abs().amax()) if values.numel() else 0.0
    if largest == 0 or not math.isfinite(largest):
        return largest
    return largest * float(torch.linalg.vector_norm(values.detach().to(torch.float64) / largest))
