"""Columns of the factor A, kept as rows, and dense float64 algebra on them: Gram matrix, combinations, diagonal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from monai_ifim.core.memory.allocation import in_large_pages
from monai_ifim.core.memory.blocks import LARGEST_BLOCK, blocks
from monai_ifim.core.memory.row_storage import HeldRow, Row


@dataclass
class FactorRows:
    """Columns A e_j (or A v_j) of a batch as `factors[j] * rows[j]`, the float64 scale apart from the row.

    like: the images [B, channel, *spatial]. rows: r of [B, D] in the image's dtype, each from a cotangent of unit length.
    factors: r of [B] float64. shelve: stores a row. block_elements: largest float64 block of the algebra, by default
    LARGEST_BLOCK.
    """

    like: Tensor
    rows: list[Row] = field(default_factory=list)
    factors: list[Tensor] = field(default_factory=list)
    shelve: Callable[[Tensor], Row] = HeldRow
    block_elements: int | None = None

    def append(self, row: Tensor, scale: Tensor) -> None:
        """Add a row [B, D] with its scale [B] float64."""
        self.rows.append(self.shelve(row))
        self.factors.append(scale)

    @property
    def scales(self) -> Tensor:
        """The factors as one tensor [B, r] float64."""
        if not self.factors:
            return torch.zeros(self.like.shape[0], 0, dtype=torch.float64, device=float64_device(self.like))
        return torch.stack(self.factors, dim=1)

    @property
    def size(self) -> int:
        """Elements D of an image."""
        return self.like[0].numel()

    def gram(self) -> Tensor:
        """Inner products of the unscaled rows, [B, r, r] float64."""
        batch, count = self.like.shape[0], len(self.rows)
        total = torch.zeros(batch, count, count, dtype=torch.float64, device=float64_device(self.like))
        for start, stop in self._blocks(batch * count):
            block = self._block(start, stop)
            total.baddbmm_(block, block.transpose(1, 2))
        return total

    def products(self, vectors: Tensor) -> Tensor:
        """A^T u for each of the vectors [B, k, D], [B, k, r] float64."""
        batch, kept, count = vectors.shape[0], vectors.shape[1], len(self.rows)
        total = torch.zeros(batch, kept, count, dtype=torch.float64, device=float64_device(self.like))
        for start, stop in self._blocks(batch * (count + kept)):
            total.baddbmm_(vectors[:, :, start:stop].to(total), self._block(start, stop).transpose(1, 2))
        return total * self.scales[:, None]

    def combine(self, weights: Tensor) -> Tensor:
        """`weights` [B, k, r] float64 times the unscaled rows, [B, k, D] in the image's dtype."""
        batch, count = self.like.shape[0], len(self.rows)
        result = in_large_pages(self.like.new_empty(batch, weights.shape[1], self.size, requires_grad=False))
        for start, stop in self._blocks(batch * (count + weights.shape[1])):
            result[:, :, start:stop] = torch.bmm(weights, self._block(start, stop)).to(result)
        return result

    def diagonal(self) -> Tensor:
        """diag F = sum_j (scales_j rows_j)^2, [B, D] float64."""
        scales = self.scales
        result = in_large_pages(torch.empty(self.like.shape[0], self.size, dtype=torch.float64, device=scales.device))
        for start, stop in self._blocks(self.like.shape[0] * len(self.rows)):
            block = self._block(start, stop) * scales[..., None]
            result[:, start:stop] = block.square_().sum(1)
        return result

    def finite(self) -> bool:
        """True if every entry is a finite number."""
        if not self.rows:
            return True
        sums = torch.stack([row.window(0, self.size).sum() for row in self.rows])  # one transfer from the device for all rows
        return bool(torch.isfinite(sums).all()) or all(all_finite(row.window(0, self.size)) for row in self.rows)

    def _block(self, start: int, stop: int) -> Tensor:
        shape = (self.like.shape[0], len(self.rows), stop - start)
        block = torch.empty(shape, dtype=torch.float64, device=float64_device(self.like))
        for j, row in enumerate(self.rows):
            block[:, j] = row.window(start, stop)
        return block

    def _blocks(self, rows: int) -> list[tuple[int, int]]:
        limit = self.block_elements or LARGEST_BLOCK
        return blocks(self.size, max(rows, 1), limit)


def all_finite(values: Tensor) -> bool:
    """True if every entry is finite; the sum is tried first, as it is cheaper and finite unless it overflows."""
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def float64_device(tensor: Tensor) -> torch.device:
    """The tensor's device, or the CPU where that has no float64 (Apple's MPS)."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
