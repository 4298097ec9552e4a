"""Rows of the factor's Jacobian product: one vector-Jacobian product for each column of the head's square root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.heads import SquareRoot

ROW_CHUNK = 64  # cotangents built at a time: bounds their memory at 64 x C for any number of classes
BLOCK_ELEMENTS = 2**23  # elements of a float64 working block: 64 MiB


@dataclass(frozen=True)
class FactorRows:
    """G^T of F = G G^T for a batch: `scales[b, j] * rows[b, j]`, the scale in float64 apart from the row.

    rows: [B, r, D] in the image's dtype, each the product of a unit cotangent; scales: [B, r] float64.
    """

    rows: Tensor
    scales: Tensor

    def gram(self) -> Tensor:
        """Inner products of the unscaled rows, [B, r, r] float64."""
        batch, columns, size = self.rows.shape
        total = torch.zeros(batch, columns, columns, dtype=torch.float64, device=_float64_device(self.rows))
        for start, stop in _blocks(size, batch * columns):
            block = _double(self.rows[:, :, start:stop])
            total.baddbmm_(block, block.transpose(1, 2))
        return total

    def combine(self, weights: Tensor) -> Tensor:
        """`weights` [B, k, r] float64 times the unscaled rows, [B, k, D] in the image's dtype."""
        batch, columns, size = self.rows.shape
        result = self.rows.new_empty(batch, weights.shape[1], size)
        for start, stop in _blocks(size, batch * (columns + weights.shape[1])):
            result[:, :, start:stop] = torch.bmm(weights, _double(self.rows[:, :, start:stop])).to(result)
        return result

    def diagonal(self) -> Tensor:
        """diag F = sum_j (scales_j rows_j)^2, [B, D] float64."""
        batch, columns, size = self.rows.shape
        result = torch.zeros(batch, size, dtype=torch.float64, device=_float64_device(self.rows))
        for start, stop in _blocks(size, batch * columns):
            block = _double(self.rows[:, :, start:stop]) * self.scales[..., None]
            result[:, start:stop] = block.square_().sum(1)
        return result


def factor_rows(output: Tensor, leaf: Tensor, root: SquareRoot, advance: Callable[[int, int], None]) -> FactorRows | None:
    """All vector-Jacobian products, those of all images of the batch in the same backward passes.

    output: [B, C] with its graph; leaf: [B, channel, *spatial], the image it was computed from. The graph is freed by the
    last product. None where no gradient reaches the image. Raises NetworkError where the products fail or are not finite.
    """
    columns, reached = root.columns, False
    rows = leaf.new_zeros(leaf.shape[0], columns, leaf[0].numel(), requires_grad=False)
    for start in range(0, columns, ROW_CHUNK):
        stop = min(start + ROW_CHUNK, columns)
        cotangents = root.cotangents(start, stop).to(output)
        for j in range(start, stop):
            gradient = _vector_jacobian_product(output, leaf, cotangents[:, j - start], last=j == columns - 1)
            if gradient is not None:
                rows[:, j], reached = gradient.flatten(1), True
            advance(j + 1, columns)
    if not reached:
        return None
    if not bool(torch.isfinite(rows).all()):
        raise NetworkError(
            "a vector-Jacobian product is NaN or infinite though image and output are finite: look for 0/0, sqrt(0) or "
            "log(0) in the network's backward pass, or use a wider dtype."
        )
    return FactorRows(rows, root.scales)


def _vector_jacobian_product(output: Tensor, leaf: Tensor, cotangent: Tensor, last: bool) -> Tensor | None:
    try:
        (gradient,) = torch.autograd.grad(output, leaf, cotangent, retain_graph=not last, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise NetworkError(
            f"the network has no backward pass: {error}. Pass a PyTorch module or TorchScript made of differentiable operations."
        ) from error
    return gradient


def _blocks(size: int, rows: int) -> list[tuple[int, int]]:
    step = max(1, BLOCK_ELEMENTS // max(1, rows))
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def _float64_device(tensor: Tensor) -> torch.device:
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device


def _double(tensor: Tensor) -> Tensor:
    return tensor.to(_float64_device(tensor)).to(torch.float64)
