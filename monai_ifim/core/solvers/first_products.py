"""The first products of a decomposition, each timed: from them the cost of a whole one is told before it is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module

import torch
from torch import Tensor

from monai_ifim.core.heads.base import Head
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Subspace
from monai_ifim.core.solvers.choice import expected_products
from monai_ifim.core.solvers.trace_probes import random_vectors
from monai_ifim.options import Method

FORWARD_MODE = "torch._decomp.decompositions_for_jvp"  # PyTorch imports it in its first forward-mode product, which takes seconds
COLUMNS = 2  # of the factor: the first product warms up


@dataclass
class FirstProducts:
    """In place of a solver: the first columns of the factor, or one random combination of them for the matrix-free method.

    told: called once they are made, if a gradient reached the image. head, method: that the whole decomposition uses. products:
    how many Jacobian products it makes, as few as usual and at most; steps: how many of these are Jacobian-vector products.
    made: vector-Jacobian products so far; seconds: of the last of them, 0 where no gradient was computed. ended: time by
    `time.perf_counter` when it was made; a Jacobian-vector product for the verification of the matrix-free method follows.
    """

    told: Callable[[FirstProducts], None]
    head: str = ""
    method: Method = "auto"
    products: tuple[int, int] = (0, 0)
    steps: tuple[int, int] = (0, 0)
    made: int = 0
    seconds: float = 0.0
    ended: float = field(default=0.0, repr=False)

    def __call__(
        self, head: Head, factor: Factor, rows: FactorRows, settings: Settings, method: Method, generator: torch.Generator
    ) -> Subspace:
        """The subspace of these columns, as if there were no others."""
        self.head, self.method = head.whole.name, method
        self.products, self.steps = expected_products(settings, factor.root, method)
        free = method == "matrix_free"
        score = self._combination(factor, rows, generator) if free else self._columns(factor, rows)
        self.ended, self.made = _now(factor.image), len(rows.rows)
        nothing = torch.zeros_like(score[:, 0])
        subspace = Subspace("matrix_free" if free else "exact", rows, score, nothing, nothing)
        if factor.jacobian.reached:
            self.told(self)
        return subspace

    def _columns(self, factor: Factor, rows: FactorRows) -> Tensor:
        count = min(1 if factor.jacobian.products else COLUMNS, factor.columns)  # within a tight budget one was made before
        cotangents = factor.cotangents(0, count)
        for j in range(count):
            started = _now(factor.image)
            rows.append(*factor.column(cotangents[:, j], j))
            self.seconds = _now(factor.image) - started
        return factor.root.score[:, :count]

    def _combination(self, factor: Factor, rows: FactorRows, generator: torch.Generator) -> Tensor:
        with suppress(ImportError):
            import_module(FORWARD_MODE)
        v = random_vectors(factor, generator)
        v = v / v.norm(dim=1, keepdim=True)
        started = _now(factor.image)
        rows.append(*factor.multiply(v))
        self.seconds = _now(factor.image) - started
        score: Tensor = (v * factor.root.score).sum(1, keepdim=True)
        return score


def _now(image: Tensor) -> float:
    """Time, once the device has done what was asked of it."""
    if image.device.type != "cpu":
        torch.accelerator.synchronize(image.device)
    return time.perf_counter()
