"""Directions in which an image is moved to verify its decomposition, and what Jacobian products say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.memory.blocks import blocks
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.metric import Metric
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.verification.trial import Expectation

COLUMNS = 16  # most columns of the factor that are compared, the heaviest ones
FURTHER = 3  # random directions besides the first


def random_direction(image: Tensor, seed: int) -> Tensor:
    """Independent standard normal numbers, one for each element of an image [1, channel, *spatial]; [D], at least float32."""
    dtype = torch.promote_types(image.dtype, torch.float32)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(image.numel(), generator=generator, dtype=torch.float32, device="cpu").to(image.device, dtype)


def combined(random: Tensor, leading: Tensor | None, eigenvalue: float, trace: float) -> Tensor:
    """r + b u_1 [D] with b = sqrt(trace / l_1), so that both parts have the same expected |A^T d|^2; r without u_1."""
    if leading is None or not eigenvalue > 0.0:
        return random
    return random + sqrt(trace / eigenvalue) * leading.to(random)


def change_by_rows(rows: FactorRows, item: int, direction: Tensor) -> Tensor:
    """A^T d of the first columns of the factor, [columns] float64, for one image of the batch; direction: d [D]."""
    count = min(len(rows.rows), COLUMNS)
    total = torch.zeros(count, dtype=torch.float64, device="cpu")
    for start, stop in blocks(rows.size, count + 1):
        window = as_float64(direction[start:stop])
        for j in range(count):
            total[j] += float(as_float64(rows.rows[j].window(start, stop)[item]) @ window)
    return total * rows.scales[item, :count].cpu()


@dataclass(frozen=True)
class Directions:
    """The directions of one image of a batch.

    image: x [1, channel, *spatial]. sensitivity: diag F [1, channel, *spatial]. metric: of the image.
    """

    image: Tensor
    sensitivity: Tensor
    metric: Metric | None

    def expectation(self, direction: Tensor, change: Tensor) -> Expectation:
        """Expectation for d [D] with A^T d = change [columns]."""
        plain = direction.reshape(self.image.shape)
        displacement = plain if self.metric is None else self.metric.apply(plain)
        # F is that of M^-1 x with a metric M, and |d| / |M d| stands for its length in units of |x|.
        length = 1.0 if self.metric is None else float(plain.norm() / displacement.norm())
        rounding = float((self.sensitivity * as_float64(self.image).to(self.sensitivity).square()).sum().sqrt())
        return Expectation(displacement, change, rounding * length)

    def by_rows(self, rows: FactorRows, item: int, first: Tensor, seed: int, more: bool) -> list[Callable[[], Expectation]]:
        """Expectations from the rows of the exact or adaptive method: first d [D], then random ones if `more`."""

        def expected(direction: Callable[[], Tensor]) -> Callable[[], Expectation]:
            def build() -> Expectation:
                d = direction()
                return self.expectation(d, change_by_rows(rows, item, d))

            return build

        def drawn(number: int) -> Callable[[], Tensor]:
            return lambda: random_direction(self.image, seed + number)

        further = range(1, FURTHER + 1) if more else ()
        return [expected(lambda: first), *(expected(drawn(number)) for number in further)]


def change_by_product(factor: Factor, directions: dict[int, Tensor]) -> dict[int, Tensor]:
    """A^T d, [columns] float64, by one product J u for all images; directions: d [D] by the number of the image in the batch."""
    rows = torch.zeros_like(factor.image).flatten(1)
    for item, direction in directions.items():
        rows[item] = direction.to(rows)
    moved = factor.adjoint(rows)
    return {item: moved[item].cpu() for item in directions}
