"""Heads: from a network's output to a square root of the Fisher information of that output.

A head turns the output z of the network at one image into a matrix S with S S^T = E[grad_z log p grad_z log p^T], so that
the Fisher information of the image is F = (J^T S)(J^T S)^T with J = dz/dx. Each column of S is kept as a unit cotangent
and a float64 scale apart from it, so that neither a float32 nor a half precision backward pass under- or overflows.

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

SUM_TOLERANCE = 1e-3  # how far a row of probabilities may be from summing to one (half precision softmax included)
LARGEST_CHANGE = 20.0  # logit change up to which the divergence is summed term by term


@dataclass(frozen=True)
class SquareRoot:
    """Columns of S for a batch: `scales[b, j] * cotangents(j)[b]`, heaviest column first.

    scales: [B, r] float64. score: [B, r] float64, coefficients w with grad_x log p(predicted class) = J^T S w; it fixes
    the sign of the eigenvectors. `cotangents` builds unit rows [B, rows, C] float64 for a slice of the columns.
    """

    scales: Tensor
    score: Tensor
    build: Callable[[int, int], Tensor]

    @property
    def columns(self) -> int:
        """Number of columns r, that is of vector-Jacobian products."""
        return self.scales.shape[1]

    def cotangents(self, start: int, stop: int) -> Tensor:
        """Unit cotangents [B, stop - start, C], float64."""
        return self.build(start, stop)


class Head(ABC):
    """The likelihood p(y | z) behind a network's output z [B, C]."""

    name: ClassVar[str]

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

    def validate(self, output: Tensor) -> None:
        """Raise `HeadError` where `output` [B, C] cannot come from this head."""
        return None


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
        log_p = functional.log_softmax(_float64(output), dim=1)
        order = log_p.argsort(dim=1, descending=True, stable=True)
        predicted, others = order[:, :1], order[:, 1:]
        s = (0.5 * log_p.gather(1, others)).exp()
        r = (0.5 * log_p.gather(1, predicted)).exp()
        q = log_p.gather(1, others).exp()
        # |e_j - a q - r e_m|^2, entry by entry; r^2 = p_m and |q|^2 is the sum over the classes not predicted.
        a = 1 / (1 + r)
        norm = (1 - 2 * a * q + a.square() * q.square().sum(1, keepdim=True) + r.square()).sqrt()

        def build(start: int, stop: int) -> Tensor:
            rows = torch.zeros_like(log_p).scatter(1, others, -a * q).scatter(1, predicted, -r)
            rows = rows[:, None].repeat(1, stop - start, 1)
            rows.scatter_add_(2, others[:, start:stop, None], torch.ones_like(rows[:, :, :1]))
            return rows / norm[:, start:stop, None]

        # grad log p_m = -U q = -(U B) s / r, because B^{-1} q = s / r.
        return SquareRoot(s * norm, -s / r, build)

    def probabilities(self, output: Tensor) -> Tensor:
        """Softmax in float64."""
        return functional.softmax(_float64(output), dim=1)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """KL of two softmaxes from the logit differences against the predicted class."""
        z, change = _float64(output), _float64(moved) - _float64(output)
        predicted = z.argmax(1, keepdim=True)
        p = functional.softmax(z, dim=1)
        return _log_partition_remainder(p, change - change.gather(1, predicted))

    def validate(self, output: Tensor) -> None:
        """Needs two classes or more, and values that are no probabilities already."""
        if output.shape[1] < 2:
            raise HeadError(
                "head 'categorical' needs at least two outputs and the network gives one: "
                "pass head='bernoulli' for one logit of a binary answer, or head='gaussian' for a regression."
            )
        if sums_to_one(output) or last_operation(output) == "softmax":
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
        z = _float64(output)
        scales = (0.5 * (functional.logsigmoid(z) + functional.logsigmoid(-z))).exp()
        # grad log p(labels) = sum_c (y_c - p_c) grad z_c, and |y_c - p_c| = sigmoid(-|z_c|) for the predicted labels.
        score = z.sign() * (0.5 * (functional.logsigmoid(-z.abs()) - functional.logsigmoid(z.abs()))).exp()
        return _diagonal_root(scales, score)

    def probabilities(self, output: Tensor) -> Tensor:
        """Sigmoid in float64."""
        return torch.sigmoid(_float64(output))

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum of the KL of every label, each written for its less likely answer."""
        z, change = _float64(output), _float64(moved) - _float64(output)
        less_likely = torch.sigmoid(-z.abs())[..., None]
        towards = torch.where(z > 0, -change, change)[..., None]
        return _log_partition_remainder(less_likely, towards).sum(1)

    def validate(self, output: Tensor) -> None:
        """Refuses an output that a sigmoid or softmax made."""
        operation = last_operation(output)
        if operation is not None:
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
        self.sigma = torch.as_tensor(sigma, dtype=torch.float64).detach().cpu()
        self.covariance = None if covariance is None else torch.as_tensor(covariance, dtype=torch.float64).detach().cpu()
        if not bool((self.sigma > 0).all()) or self.sigma.ndim > 1:
            raise HeadError("sigma must be positive: a number, or one standard deviation for each output, [C].")
        if self.covariance is not None and not _is_covariance(self.covariance):
            raise HeadError("covariance must be a symmetric positive definite matrix [C, C].")

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C. The score is zero: the mean is the mode."""
        rows = self._inverse_root(output.shape[1]).to(_float64(output).device)
        norm = torch.linalg.vector_norm(rows, dim=1)
        unit = (rows / norm[:, None]).expand(output.shape[0], -1, -1)
        scales = norm.expand(output.shape[0], -1).clone()
        return SquareRoot(scales, torch.zeros_like(scales), lambda start, stop: unit[:, start:stop])

    def probabilities(self, output: Tensor) -> Tensor:
        """The mean z: a regression has no class probabilities."""
        return _float64(output)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """1/2 |Sigma^{-1/2} (z' - z)|^2."""
        change = _float64(moved) - _float64(output)
        rows = self._inverse_root(output.shape[1]).to(change.device)
        return 0.5 * (change @ rows.T).square().sum(1)

    def _inverse_root(self, outputs: int) -> Tensor:
        """L^{-1} [C, C]: its rows are the columns of S."""
        covariance = torch.diag(self.sigma.square().expand(outputs)) if self.covariance is None else self.covariance
        if covariance.shape[0] != outputs or (self.covariance is None and self.sigma.numel() not in (1, outputs)):
            raise HeadError(f"the Gaussian head was made for another number of outputs than the network's {outputs}.")
        identity = torch.eye(outputs, dtype=torch.float64)
        return torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)


class CategoricalProbabilityHead(Head):
    """Mutually exclusive classes, output = probabilities that sum to one.

    In the coordinates q the Fisher information is diag(1/q) + 1 1^T / p_m = T T^T with
    T = diag(1/s)(I + s s^T / (r (1 + r))), the inverse transpose of the categorical head's B. A class whose probability
    has underflowed to zero carries no gradient either and is left out.
    """

    name: ClassVar[str] = "probabilities"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C - 1."""
        p = _float64(output)
        order = p.argsort(dim=1, descending=True, stable=True)
        predicted, others = order[:, :1], order[:, 1:]
        q = p.gather(1, others)
        alive = q > 0
        s, r = q.sqrt(), p.gather(1, predicted).sqrt()
        inverse_s = torch.where(alive, 1 / s, 0.0)
        b = 1 / (r * (1 + r))
        # Row j of T^T: (1/s_j) e_j + b s_j 1, over the classes not predicted that are alive.
        ones = alive.to(torch.float64)
        norm = (inverse_s.square() + 2 * b + (b * s).square() * ones.sum(1, keepdim=True)).sqrt() * ones

        def build(start: int, stop: int) -> Tensor:
            flat = (b * s)[:, start:stop, None] * ones[:, None]
            flat[:, :, start:stop] += torch.diag_embed(inverse_s[:, start:stop])
            flat = flat / torch.where(alive, norm, 1.0)[:, start:stop, None]
            rows = torch.zeros(*flat.shape[:2], p.shape[1], dtype=p.dtype, device=p.device)
            return rows.scatter(2, others[:, None].expand_as(flat), flat)

        # grad log p_m = -(1/p_m) U 1 over the others, and T^{-1} 1 = s r.
        return SquareRoot(norm, -s / r, build)

    def probabilities(self, output: Tensor) -> Tensor:
        """The output itself, float64."""
        return _float64(output)

    def logits(self, output: Tensor) -> Tensor:
        """log p, with the smallest normal number in the place of zero."""
        return output.clamp_min(torch.finfo(output.dtype).tiny).log()

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """KL of the two distributions, through their logits."""
        return CategoricalHead().divergence(self.logits(output), self.logits(moved))

    def validate(self, output: Tensor) -> None:
        """Each row must be non-negative and sum to one."""
        if output.shape[1] < 2 or not sums_to_one(output):
            raise HeadError(
                "head='probabilities' was promised, but the output has values outside [0, 1] or rows that do not sum to "
                "one: pass head='categorical' for logits."
            )


class BernoulliProbabilityHead(Head):
    """Independent labels, output = sigmoid probabilities: column c of S is e_c / sqrt(p_c (1 - p_c)).

    A label saturated to exactly 0 or 1 carries no gradient and is left out.
    """

    name: ClassVar[str] = "bernoulli_probabilities"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C."""
        p = _float64(output)
        variance = p * (1 - p)
        scales = torch.where(variance > 0, variance.rsqrt(), 0.0)
        score = torch.where(p > 0.5, 1 - p, -p) * scales
        return _diagonal_root(scales, score)

    def probabilities(self, output: Tensor) -> Tensor:
        """The output itself, float64."""
        return _float64(output)

    def logits(self, output: Tensor) -> Tensor:
        """log p - log(1 - p), kept finite."""
        return torch.logit(output, eps=torch.finfo(output.dtype).eps)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum of the KL of every label, through their logits."""
        return BernoulliHead().divergence(self.logits(output), self.logits(moved))

    def validate(self, output: Tensor) -> None:
        """Every value must lie in [0, 1]."""
        if bool(((output < 0) | (output > 1)).any()):
            raise HeadError(
                "head='probabilities' was promised, but the output has values outside [0, 1]: "
                "pass head='bernoulli' (independent labels) or head='categorical' (exclusive classes) for logits."
            )


def resolve_head(head: str | Head, output: Tensor) -> Head:
    """The head that `head` names for this output [B, C]; raises HeadError with the cure where that is uncertain.

    "auto" takes two or more outputs that no softmax or sigmoid made for the logits of exclusive classes and refuses all
    else: one output may be a binary logit or a regression.
    """
    if isinstance(head, Head):
        chosen = head
    elif head == "auto":
        chosen = _automatic_head(output)
    elif head == "probabilities":
        exclusive = output.shape[1] > 1 and sums_to_one(output)
        chosen = CategoricalProbabilityHead() if exclusive else BernoulliProbabilityHead()
    elif head in _BY_NAME:
        chosen = _BY_NAME[head]()
    else:
        known = ", ".join(repr(name) for name in ("auto", *_BY_NAME, "probabilities"))
        raise HeadError(f"unknown head {head!r}: choose one of {known}, or pass a Head.")
    chosen.validate(output)
    return chosen


def sums_to_one(output: Tensor) -> bool:
    """Whether every row of [B, C] is a probability distribution to within SUM_TOLERANCE."""
    values = _float64(output)
    return bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < SUM_TOLERANCE).all())


def last_operation(output: Tensor) -> str | None:
    """'sigmoid' or 'softmax' where autograd says that it made `output`, up to reshapes; else None."""
    node = output.grad_fn
    for _ in range(16):
        if node is None:
            return None
        name = node.name()
        if name.startswith("Sigmoid"):
            return "sigmoid"
        if name.startswith("Softmax"):
            return "softmax"
        if not name.startswith(_RESHAPES) or not node.next_functions:
            return None
        node = node.next_functions[0][0]
    return None


_RESHAPES = ("View", "Reshape", "Unsafe", "Squeeze", "Unsqueeze", "Slice", "Select", "Clone", "Alias", "ToCopy", "Transpose",
             "Permute", "Flatten")  # fmt: skip

_BY_NAME: dict[str, type[Head]] = {
    "categorical": CategoricalHead,
    "bernoulli": BernoulliHead,
    "gaussian": GaussianHead,
}


def _automatic_head(output: Tensor) -> Head:
    if last_operation(output) == "sigmoid":
        raise HeadError(
            "head='auto': the network's last operation is a sigmoid: pass head='probabilities', or take the sigmoid off "
            "and pass head='bernoulli', which keeps more digits."
        )
    if output.shape[1] == 1:
        raise HeadError(
            "head='auto' cannot tell what a single output is: pass head='bernoulli' for the logit of a binary answer, "
            "head='probabilities' for its sigmoid, or head='gaussian' for a regression."
        )
    return CategoricalHead()


def _diagonal_root(scales: Tensor, score: Tensor) -> SquareRoot:
    """A root whose columns are multiples of the unit vectors, sorted by weight."""
    scales, order = scales.sort(dim=1, descending=True, stable=True)
    outputs = scales.shape[1]
    return SquareRoot(
        scales,
        score.gather(1, order),
        lambda start, stop: functional.one_hot(order[:, start:stop], outputs).to(scales.dtype),
    )


def _log_partition_remainder(p: Tensor, change: Tensor) -> Tensor:
    """log sum_c p_c exp(d_c) - sum_c p_c d_c over the last axis, without cancelling for tiny p or tiny d.

    Written as [log1p(w) - w] + sum_c p_c (expm1(d_c) - d_c) with w = sum_c p_c expm1(d_c). Where exp(d) is so large that
    the brackets would cancel each other or overflow, the plain log-sum-exp steps in.
    """
    small = change.clamp(max=LARGEST_CHANGE)
    excess = (p * torch.expm1(small)).sum(-1)
    careful = (torch.log1p(excess) - excess) + (p * (torch.expm1(small) - small)).sum(-1)
    rest = 1 - p.sum(-1, keepdim=True)  # weight on a change of zero that a one-sided caller leaves out
    log_terms = torch.cat([p.log() + change, rest.clamp_min(0).log()], dim=-1)
    plain = torch.logsumexp(log_terms, dim=-1) - (p * change).sum(-1)
    return torch.where((change > LARGEST_CHANGE).any(-1), plain, careful)


def _is_covariance(matrix: Tensor) -> bool:
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not torch.allclose(matrix, matrix.T):
        return False
    return int(torch.linalg.cholesky_ex(matrix).info) == 0


def _float64(values: Tensor) -> Tensor:
    """Detached float64 values, on the CPU where the device has no float64 (Apple's MPS)."""
    values = values.detach()
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)
