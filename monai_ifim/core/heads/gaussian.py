"""The head of a regression with known noise."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Head, Values
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.heads.square_root import SquareRoot

SMALLEST_SIGMA = 1e-75  # whose inverse square and its square stay inside float64


class GaussianHead(Head):
    """Regression with known noise: p(y | z) = N(z, Sigma); S = L^{-T} with Sigma = L L^T.

    sigma: standard deviation of every output, a number or [C], in the output's unit. covariance: [C, C], instead of sigma.
    Raises HeadError where sigma is not positive or the covariance not symmetric positive definite.
    """

    name: ClassVar[str] = "gaussian"
    values: ClassVar[Values] = "mean"

    def __init__(self, sigma: float | Tensor = 1.0, *, covariance: Tensor | None = None) -> None:
        self.sigma = torch.as_tensor(sigma, dtype=torch.float64, device="cpu").detach()
        self.covariance = None if covariance is None else torch.as_tensor(covariance, dtype=torch.float64, device="cpu").detach()
        usable = (self.sigma > SMALLEST_SIGMA) & (self.sigma < 1 / SMALLEST_SIGMA)
        if not bool(usable.all()) or self.sigma.ndim > 1:
            raise HeadError(
                "sigma must be positive and neither vanishing nor infinite: a number, or one standard deviation for each "
                "output, [C]."
            )
        if self.covariance is not None and not _is_covariance(self.covariance):
            raise HeadError("covariance must be a finite, symmetric positive definite matrix [C, C].")

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C. The score is zero: the mean is the mode."""
        rows = self._inverse_root(output.shape[1]).to(as_float64(output).device)
        norm = torch.linalg.vector_norm(rows, dim=1)
        unit = (rows / norm[:, None]).expand(output.shape[0], -1, -1)
        scales = norm.expand(output.shape[0], -1).clone()
        return SquareRoot(scales, torch.zeros_like(scales), lambda start, stop: unit[:, start:stop])

    def probabilities(self, output: Tensor) -> Tensor:
        """The mean z: a regression has no class probabilities."""
        return as_float64(output)

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """The change of the mean itself."""
        return as_float64(changes)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """1/2 |Sigma^{-1/2} (z' - z)|^2."""
        change = as_float64(moved) - as_float64(output)
        rows = self._inverse_root(output.shape[1]).to(change.device)
        return 0.5 * (change @ rows.T).square().sum(1)

    def _inverse_root(self, outputs: int) -> Tensor:
        """L^{-1} [C, C]: its rows are the columns of S."""
        wanted = self.sigma.numel() if self.covariance is None else self.covariance.shape[0]
        if wanted != outputs and (self.covariance is not None or wanted != 1):
            raise HeadError(f"the Gaussian head was made for {wanted} output(s) and the network gives {outputs}.")
        if self.covariance is None:
            return torch.diag((1 / self.sigma).expand(outputs))
        identity = torch.eye(outputs, dtype=torch.float64, device="cpu")
        root: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(self.covariance), identity, upper=False)
        return root


def _is_covariance(matrix: Tensor) -> bool:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        return False
    if not bool(torch.isfinite(matrix).all()) or not torch.allclose(matrix, matrix.T):
        return False
    return int(torch.linalg.cholesky_ex(matrix).info) == 0
