"""Heads: from a network's output to a square root of the Fisher information of that output.

A head turns the output z of the network at one image into a matrix S with S S^T = E[grad_z log p grad_z log p^T], so that
the Fisher information of the image is F = (J^T S)(J^T S)^T with J = dz/dx. Each column of S is kept as a unit cotangent
and a float64 scale apart from it, so that the scale of the answer neither under- nor overflows in the backward pass.

A new head is one small subclass of `Head`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.outputs import as_float64, sums_to_one

SMALLEST_SIGMA = 1e-75  # whose inverse square and its square stay inside float64
LARGEST_CHANGE = 700.0  # logit change whose exponential float64 holds
COLUMN_CHUNK = 64  # cotangents built at a time: bounds their memory for any number of classes


@dataclass(frozen=True)
class SquareRoot:
    """Columns of S for a batch: `scales[b, j] * cotangents(j)[b]`, heaviest column first.

    scales: [B, r] float64. score: [B, r] float64, coefficients w with grad_x log p(predicted class) = J^T S w; it fixes
    the sign of the eigenvectors. `build` makes unit rows [B, rows, *output] float64 for a slice of the columns; `multiply`
    and `adjoint` are S v and S^T w without the columns, for heads whose S has structure.
    """

    scales: Tensor
    score: Tensor
    build: Callable[[int, int], Tensor]
    multiply: Callable[[Tensor], Tensor] | None = None
    adjoint: Callable[[Tensor], Tensor] | None = None

    @property
    def columns(self) -> int:
        """Number of columns r, that is of vector-Jacobian products."""
        return self.scales.shape[1]

    def cotangents(self, start: int, stop: int) -> Tensor:
        """Unit cotangents [B, stop - start, *output], float64."""
        return self.build(start, stop)

    def product(self, v: Tensor) -> Tensor:
        """S v, [B, *output] float64, of v [B, r]."""
        if self.multiply is not None:
            return self.multiply(v)
        weights = v * self.scales
        parts = [
            torch.einsum("bj,bj...->b...", weights[:, start:stop], self.build(start, stop)) for start, stop in self._slices()
        ]
        return torch.stack(parts).sum(0)

    def adjoint_product(self, w: Tensor) -> Tensor:
        """S^T w, [B, r] float64, of w [B, *output]."""
        if self.adjoint is not None:
            return self.adjoint(w)
        parts = [torch.einsum("bj...,b...->bj", self.build(start, stop), w) for start, stop in self._slices()]
        return torch.cat(parts, dim=1) * self.scales

    def _slices(self) -> list[tuple[int, int]]:
        return [(start, min(start + COLUMN_CHUNK, self.columns)) for start in range(0, self.columns, COLUMN_CHUNK)]


class Head(ABC):
    """The likelihood p(y | z) behind a network's output z [B, C].

    spatial: whether z is a map [B, C, *spatial] with an answer at every voxel.
    """

    name: ClassVar[str]
    spatial: ClassVar[bool] = False

    @abstractmethod
    def square_root(self, output: Tensor) -> SquareRoot:
        """Square root of the Fisher information of `output` [B, C]."""

    @abstractmethod
    def probabilities(self, output: Tensor) -> Tensor:
        """Probability of each class (for regression: the mean), [B, C] float64."""

    @abstractmethod
    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Kullback-Leibler divergence from `output` to `moved`, [B] float64, in nats, exact for tiny values too."""

    def logits(self, output: Tensor) -> Tensor:
        """The output as logits [B, C]; only heads on probabilities differ from the identity."""
        return output

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise `HeadError` where `output` [B, C] cannot come from this head.

        operation: "sigmoid" or "softmax" where that is known to have made the output.
        """
        return


class CategoricalHead(Head):
    """Mutually exclusive classes, output = logits; the stable reduced form with C - 1 products.

    With m the predicted class, q the other probabilities, s = sqrt(q), r = sqrt(p_m) and a = 1 / (1 + r),
    diag(q) - q q^T = B B^T for B = diag(s)(I - a s s^T) exactly. Column j of S is s_j (e_j - a q - r e_m): nothing in it
    cancels, and s_j comes from the log-softmax in float64.

    >>> z = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    >>> root = CategoricalHead().square_root(z)
    >>> s = (root.scales[..., None] * root.cotangents(0, 2))[0]
    >>> p = z.softmax(1)[0]
    >>> bool(torch.allclose(s.T @ s, torch.diag(p) - torch.outer(p, p), atol=1e-15))
    True
    """

    name: ClassVar[str] = "categorical"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C - 1."""
        return exclusive_root(functional.log_softmax(as_float64(output), dim=1))

    def probabilities(self, output: Tensor) -> Tensor:
        """Softmax in float64."""
        return functional.softmax(as_float64(output), dim=1)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """KL of two softmaxes from the logit differences against the predicted class."""
        z, change = as_float64(output), as_float64(moved) - as_float64(output)
        predicted = z.argmax(1, keepdim=True)
        p = functional.softmax(z, dim=1)
        return _log_partition_remainder(p, change - change.gather(1, predicted))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Needs two classes or more, and values that are no probabilities already."""
        if output.shape[1] < 2:
            raise HeadError(
                "head 'categorical' needs at least two outputs and the network gives one: "
                "pass head='bernoulli' for one logit of a binary answer, or head='gaussian' for a regression."
            )
        if sums_to_one(output) or operation == "softmax":
            raise HeadError(
                "the network's output is already a softmax (no negative value, each row sums to one) where logits were "
                "promised: pass head='probabilities', or, for more digits, take the softmax off the network."
            )


class BernoulliHead(Head):
    """Independent labels (or one binary logit): column c of S is sqrt(p_c (1 - p_c)) e_c.

    The square root is exp((logsigmoid(z) + logsigmoid(-z)) / 2), which does not cancel for saturated labels.
    """

    name: ClassVar[str] = "bernoulli"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C."""
        z = as_float64(output)
        scales = (0.5 * (functional.logsigmoid(z) + functional.logsigmoid(-z))).exp()
        # grad log p(labels) = sum_c (y_c - p_c) grad z_c, and |y_c - p_c| = sigmoid(-|z_c|) for the predicted labels.
        score = z.sign() * (0.5 * (functional.logsigmoid(-z.abs()) - functional.logsigmoid(z.abs()))).exp()
        return diagonal_root(scales, score)

    def probabilities(self, output: Tensor) -> Tensor:
        """Sigmoid in float64."""
        return torch.sigmoid(as_float64(output))

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum of the KL of every label, each written for its less likely answer."""
        z, change = as_float64(output), as_float64(moved) - as_float64(output)
        less_likely = torch.sigmoid(-z.abs())[..., None]
        towards = torch.where(z > 0, -change, change)[..., None]
        return _log_partition_remainder(less_likely, towards).sum(1)

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Refuses an output that a sigmoid or softmax made."""
        if operation in ("sigmoid", "softmax"):
            raise HeadError(
                f"the network's last operation is a {operation} where logits were promised: "
                f"pass head='probabilities', or, for more digits, take the {operation} off the network."
            )


class GaussianHead(Head):
    """Regression with known noise: p(y | z) = N(z, Sigma); S = L^{-T} with Sigma = L L^T.

    sigma: standard deviation of every output, a number or [C], in the output's unit. covariance: [C, C], in its place.
    Raises HeadError where sigma is not positive or the covariance not symmetric positive definite.
    """

    name: ClassVar[str] = "gaussian"

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


def exclusive_root(log_p: Tensor) -> SquareRoot:
    """The root of `CategoricalHead` from log-probabilities [B, C], or [B, C, *spatial] with a softmax at every voxel.

    Its r = (C - 1) x voxels columns are those of each voxel's own root, class by class; float64.
    """
    order = log_p.argsort(dim=1, descending=True, stable=True)
    predicted, others = order[:, :1], order[:, 1:]
    s = (0.5 * log_p.gather(1, others)).exp()
    r = (0.5 * log_p.gather(1, predicted)).exp()
    q = log_p.gather(1, others).exp()
    # |e_j - a q - r e_m|^2, entry by entry; r^2 = p_m and |q|^2 is the sum over the classes not predicted.
    a = 1 / (1 + r)
    norm = (1 - 2 * a * q + a.square() * q.square().sum(1, keepdim=True) + r.square()).sqrt()

    def build(start: int, stop: int) -> Tensor:
        if log_p.ndim > 2:
            raise HeadError("a softmax at every voxel has a column for each voxel and class: use method='matrix_free'.")
        rows = torch.zeros_like(log_p).scatter(1, others, -a * q).scatter(1, predicted, -r)
        rows = rows[:, None].repeat(1, stop - start, 1)
        rows.scatter_add_(2, others[:, start:stop, None], torch.ones_like(rows[:, :, :1]))
        return rows / norm[:, start:stop, None]

    def multiply(v: Tensor) -> Tensor:
        weighted = s * v.reshape(s.shape)
        total = weighted.sum(1, keepdim=True)
        return torch.zeros_like(log_p).scatter(1, others, weighted - a * q * total).scatter(1, predicted, -r * total)

    def adjoint(w: Tensor) -> Tensor:
        rest = w.gather(1, others)
        return (s * (rest - a * (q * rest).sum(1, keepdim=True) - r * w.gather(1, predicted))).flatten(1)

    # grad log p_m = -U q = -(U B) s / r, because B^{-1} q = s / r.
    return SquareRoot((s * norm).flatten(1), (-s / r).flatten(1), build, multiply, adjoint)


def diagonal_root(scales: Tensor, score: Tensor) -> SquareRoot:
    """A root whose columns are multiples of the unit vectors, sorted by weight."""
    scales, order = scales.sort(dim=1, descending=True, stable=True)
    outputs = scales.shape[1]
    return SquareRoot(
        scales,
        score.gather(1, order),
        lambda start, stop: functional.one_hot(order[:, start:stop], outputs).to(scales.dtype),
        lambda v: torch.zeros_like(scales).scatter(1, order, scales * v),
        lambda w: scales * w.gather(1, order),
    )


def _log_partition_remainder(p: Tensor, change: Tensor) -> Tensor:
    """log sum_c p_c exp(d_c) - sum_c p_c d_c over the last axis, without cancelling for tiny p or tiny d.

    Written as [log1p(w) - w] + sum_c p_c (expm1(d_c) - d_c) with w = sum_c p_c expm1(d_c). Where w > 1 the brackets would
    cancel each other or overflow, and the plain log-sum-exp, at least log 2 there, steps in.
    """
    small = change.clamp(max=LARGEST_CHANGE)
    excess = (p * torch.expm1(small)).sum(-1)
    careful = (torch.log1p(excess) - excess) + (p * (torch.expm1(small) - small)).sum(-1)
    rest = 1 - p.sum(-1, keepdim=True)  # weight on a change of zero that a one-sided caller leaves out
    log_terms = torch.cat([p.log() + change, rest.clamp_min(0).log()], dim=-1)
    plain = torch.logsumexp(log_terms, dim=-1) - (p * change).sum(-1)
    return torch.where((excess > 1) | (change > LARGEST_CHANGE).any(-1), plain, careful)


def _is_covariance(matrix: Tensor) -> bool:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        return False
    if not bool(torch.isfinite(matrix).all()) or not torch.allclose(matrix, matrix.T):
        return False
    return int(torch.linalg.cholesky_ex(matrix).info) == 0
