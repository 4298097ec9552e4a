"""The factor A = M J^T S of F' = A A^T, as an operator: its columns, A v and A^T u."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.metric import Metric
from monai_ifim.core.operator.rows import FactorRows, float64_device


@dataclass(frozen=True)
class Factor:
    """A [D, r] of each image of a batch; every product is a row [B, D] and a float64 scale apart from it.

    before_metric: takes the columns of J^T S too, as they are before the metric; None to keep none.
    """

    jacobian: Jacobian
    root: SquareRoot
    metric: Metric | None = None
    before_metric: FactorRows | None = None

    @property
    def columns(self) -> int:
        """Number r of columns."""
        return self.root.columns

    @property
    def image(self) -> Tensor:
        """The images [B, channel, *spatial]."""
        return self.jacobian.image

    def column_chunks(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Slices (first, end) of the columns start to stop whose cotangents are built together."""
        return self.root.chunks(start, stop)

    def cotangents(self, start: int, stop: int) -> Tensor:
        """Unit cotangents [B, stop - start, *output] of columns start to stop."""
        return self.root.cotangents(start, stop)

    def column(self, cotangent: Tensor, j: int, last: bool = False) -> tuple[Tensor, Tensor]:
        """Row [B, D] and scale [B] with A e_j = scale x row, from the unit cotangent [B, *output] of column j."""
        row, scale = self._before_metric(cotangent, self.root.scales[:, j], last)
        if self.metric is not None and self.before_metric is not None:
            self.before_metric.append(row, scale)
        return self._mapped(row), scale

    def multiply(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Row [B, D] and scale [B] float64 with A v = scale x row, for v [B, r] float64."""
        cotangent = self.root.product(v)
        length = torch.linalg.vector_norm(cotangent.flatten(1), dim=1, dtype=torch.float64)
        safe = torch.where(length > 0, length, 1.0).to(cotangent)
        row, scale = self._before_metric(cotangent / _beside(safe, cotangent), length)
        return self._mapped(row), scale

    def adjoint(self, row: Tensor) -> Tensor:
        """A^T u, [B, r] float64, of rows u [B, D]; the tangent is scaled so that its largest entry is one."""
        images = row.reshape(self.image.shape)
        if self.metric is not None:
            images = self.metric.apply(images)
        largest = images.flatten(1).abs().amax(1)
        safe = torch.where(largest > 0, largest, 1.0)
        moved = self.jacobian.product(images / _beside(safe, images))
        wide = safe.to(device=float64_device(images)).to(torch.float64)
        return self.root.adjoint_product(moved * _beside(wide, moved))

    def _before_metric(self, cotangent: Tensor, scale: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        row, factor = self.jacobian.transposed(cotangent, last)
        return row, scale / factor

    def _mapped(self, row: Tensor) -> Tensor:
        return row if self.metric is None else self.metric.apply(row.reshape(self.image.shape)).flatten(1)


def _beside(values: Tensor, like: Tensor) -> Tensor:
    """[B] reshaped to as many axes as `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
