"""Jacobian products computed once more, at an image or beside it, for the verification of a doubtful one."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from monai_ifim.core.errors import IFIMError
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.moved_image import MovedImage
from monai_ifim.core.verification.trial import Expectation, Trial, root_mean_square

COLUMNS = 4  # of the factor, the heaviest ones


def repeated_at(moved: MovedImage, displacement: Tensor, offset: float) -> Trial | None:
    """A trial with products J^T c (J u for a spatial head) of their own; None where they cannot be computed.

    offset: distance of its image from that of `moved`, in a random direction, as a share of the image's root mean square.
    """
    try:
        return _trial(moved, displacement, offset)
    except (RuntimeError, TypeError, IFIMError):  # as of a precision, or second derivatives, that the network does not have
        return None


def _trial(moved: MovedImage, displacement: Tensor, offset: float) -> Trial:
    image = moved.image.to(moved.dtype or moved.image.dtype)
    length = offset * (root_mean_square(image) or 1.0)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu")
    image = image + length * noise.to(image)
    item = torch.tensor([moved.item], device=image.device)
    with torch.enable_grad():
        jacobian = Jacobian(lambda images: moved.predictor(images, item), image, moved.context)
        there = replace(moved, image=image, output=jacobian.output)
        change, rounding = _changes(there, jacobian, displacement.to(image))
    return Trial(there, Expectation(displacement, change, rounding))


def _changes(moved: MovedImage, jacobian: Jacobian, displacement: Tensor) -> tuple[Tensor, float]:
    """(A^T d, what a relative rounding error of the image's elements adds to it)."""
    root, image = moved.root, as_float64(moved.image).flatten()
    if moved.head.columns_at_every_voxel:
        change = root.adjoint_product(jacobian.product(displacement))[0].cpu()
        return change, float(change.norm()) * root_mean_square(moved.image) / root_mean_square(displacement)
    changes, squares = [], 0.0
    cotangents = root.cotangents(0, min(COLUMNS, root.columns))
    for j in range(cotangents.shape[1]):
        row, factor = jacobian.transposed(cotangents[:, j])
        row, scale = as_float64(row)[0], float(root.scales[0, j]) / factor
        changes.append(scale * float(row @ as_float64(displacement).flatten()))
        squares += float((scale * row * image).square().sum())
    return torch.tensor(changes, dtype=torch.float64, device="cpu"), squares**0.5
