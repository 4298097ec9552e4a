"""The first products of a decomposition, each timed: from them the cost of a whole one is told before it is made."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
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
COLUMNS = 3  # of the factor: the first product warms up, and the others tell how far their times differ


@dataclass
class FirstProducts:
    """In place of a solver: the first columns of the factor, or one random combination of them for the matrix-free method.

    told: called once they are made, if a gradient reached the image. head, method: that the whole decomposition uses. products:
    how many Jacobian products it makes, as few as usual and at most; steps: how many of these are Jacobian-vector products.
    made: vector-Jacobian products so far; times: seconds of each but the first, which warms up, or of that one alone. ended: by
    `time.perf_counter`, when the last was made; a Jacobian-vector product for the verification of the matrix-free method follows.
    """

    told: Callable[[FirstProducts], None]
    head: str = ""
    method: Method = "auto"
    products: tuple[int, int] = (0, 0)
    steps: tuple[int, int] = (0, 0)
    made: int = 0
    times: tuple[float, ...] = ()
    ended: float = field(default=0.0, repr=False)

    def __call__(
        self, head: Head, factor: Factor, rows: FactorRows, settings: Settings, method: Method, generator: torch.Generator
    ) -> Subspace:
        """The subspace of these columns, as if there were no others."""
        self.head, self.method = head.whole.name, method
        self.products, self.steps = expected_products(settings, factor.root, method)
        free = method == "matrix_free"
        score = self._combination(factor, rows, generator) if free else self._columns(factor, rows)
        self.ended, self.made = _now(factor.image), len(self.times)
        self.times = self.times[1:] or self.times
        nothing = torch.zeros_like(score[:, 0])
        subspace = Subspace("matrix_free" if free else "exact", rows, score, nothing, nothing)
        if factor.jacobian.reached:
            self.told(self)
        return subspace

    def _columns(self, factor: Factor, rows: FactorRows) -> Tensor:
        count = min(COLUMNS - 1 if factor.jacobian.products else COLUMNS, factor.columns)  # in a tight budget one was made before
        cotangents = factor.cotangents(0, count)
        for j in range(count):
            rows.append(*self._timed(factor, partial(factor.column, cotangents[:, j], j)))
        return factor.root.score[:, :count]

    def _combination(self, factor: Factor, rows: FactorRows, generator: torch.Generator) -> Tensor:
        with suppress(ImportError):
            import_module(FORWARD_MODE)
        v = random_vectors(factor, generator)
        v = v / v.norm(dim=1, keepdim=True)
        if not factor.jacobian.products:
            self._timed(factor, partial(factor.multiply, v))
        rows.append(*self._timed(factor, partial(factor.multiply, v)))
        score: Tensor = (v * factor.root.score).sum(1, keepdim=True)
        return score

    def _timed(self, factor: Factor, product: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        started = _now(factor.image)
        made = product()
        self.times = (*self.times, _now(factor.image) - started)
        return made


def _now(image: Tensor) -> float:
    """Time, once the device has done what was asked of it."""
    if image.device.type != "cpu":
        torch.accelerator.synchronize(image.device)
    return time.perf_counter()
