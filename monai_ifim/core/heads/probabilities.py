"""Heads for networks that end in a softmax or sigmoid: the same Fisher information in the coordinates of probabilities.

Digits that the network's own softmax has rounded away in its dtype cannot be had back; logits keep more.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Answers, Head
from monai_ifim.core.heads.bernoulli import BernoulliHead
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.outputs import as_float64, sums_to_one
from monai_ifim.core.heads.square_root import SquareRoot, diagonal_root

VANISHED = 1e-300  # probability whose inverse, and sums of such, would come near the end of float64


class CategoricalProbabilityHead(Head):
    """Mutually exclusive classes, output = probabilities that sum to one.

    In the coordinates q the Fisher information is diag(1/q) + 1 1^T / p_m = T T^T with
    T = diag(1/s)(I + s s^T / (r (1 + r))), the inverse transpose of the categorical head's B. A class whose probability
    has vanished carries no gradient either and is left out.
    """

    name: ClassVar[str] = "probabilities"
    answers: ClassVar[Answers] = "class"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C - 1."""
        p = as_float64(output)
        order = p.argsort(dim=1, descending=True, stable=True)
        predicted, others = order[:, :1], order[:, 1:]
        q = p.gather(1, others)
        alive = q > VANISHED
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

    def log_odds(self, output: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """t = log p_c - log q with q the sum of the others; dt/dp = e_c / (p_c q), or where p_c > q its equal on the softmax's
        image, -1 / (p_c q) at the others, whose gradient has not been rounded away. Zero where p_c or q has vanished."""
        p = as_float64(output)
        own, others = p[:, label], p.index_fill(1, torch.tensor(label, device=p.device), 0.0).sum(1)
        alive = (own > VANISHED) & (others > VANISHED) & (own * others > VANISHED)
        slope = torch.where(alive, 1 / (own * others), 0.0)
        direction = torch.where(own > others, -slope, 0.0)[:, None].repeat(1, p.shape[1])
        direction[:, label] = torch.where(own > others, 0.0, slope)
        return own.clamp_min(VANISHED).log() - others.clamp_min(VANISHED).log(), direction

    def probabilities(self, output: Tensor) -> Tensor:
        """The output itself, float64."""
        return as_float64(output)

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """dp_c / p_c; that of the predicted class from the others, as probabilities sum to one. Zero where p_c has vanished."""
        p, moved = as_float64(output), as_float64(changes)
        predicted = p.argmax(1)[:, None, None].expand(-1, moved.shape[1], 1)
        moved = moved.scatter(2, predicted, 0.0)
        moved = moved.scatter(2, predicted, -moved.sum(2, keepdim=True))
        return moved * torch.where(p > VANISHED, 1 / p, 0.0)[:, None]

    def logits(self, output: Tensor) -> Tensor:
        """log p, with the smallest normal number instead of zero."""
        return output.clamp_min(torch.finfo(output.dtype).tiny).log()

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """KL of the two distributions, through their logits."""
        return CategoricalHead().divergence(self.logits(output), self.logits(moved))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Each row must be non-negative and sum to one."""
        if output.shape[1] < 2 or not sums_to_one(output):
            raise HeadError(
                "head='probabilities' does not fit: the output has values outside [0, 1] or rows that do not sum to "
                "one: pass head='categorical' for logits."
            )


class BernoulliProbabilityHead(Head):
    """Independent labels, output = sigmoid probabilities: column c of S is e_c / sqrt(p_c (1 - p_c)).

    A label saturated to 0 or 1 carries no gradient and is left out.
    """

    name: ClassVar[str] = "bernoulli_probabilities"
    answers: ClassVar[Answers] = "label"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C."""
        p = as_float64(output)
        variance = p * (1 - p)
        scales = torch.where(variance > VANISHED, variance.rsqrt(), 0.0)
        score = torch.where(p > 0.5, 1 - p, -p) * scales
        return diagonal_root(scales, score)

    def log_odds(self, output: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """t = log p_c - log(1 - p_c); dt/dp = e_c / (p_c (1 - p_c)), zero for a saturated label."""
        p = as_float64(output)
        own = p[:, label]
        variance = own * (1 - own)
        direction = torch.zeros_like(p)
        direction[:, label] = torch.where(variance > VANISHED, 1 / variance, 0.0)
        return own.clamp_min(VANISHED).log() - (1 - own).clamp_min(VANISHED).log(), direction

    def probabilities(self, output: Tensor) -> Tensor:
        """The output itself, float64."""
        return as_float64(output)

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """dp_c / p_c, of the label being present; zero where p_c has vanished."""
        p = as_float64(output)
        return as_float64(changes) * torch.where(p > VANISHED, 1 / p, 0.0)[:, None]

    def logits(self, output: Tensor) -> Tensor:
        """log p - log(1 - p), kept finite."""
        return torch.logit(output, eps=torch.finfo(output.dtype).eps)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum of the KL of every label, through their logits."""
        return BernoulliHead().divergence(self.logits(output), self.logits(moved))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Every value must lie in [0, 1]."""
        if bool(((output < 0) | (output > 1)).any()):
            raise HeadError(
                "head='probabilities' does not fit: the output has values outside [0, 1]: "
                "pass head='bernoulli' (independent labels) or head='categorical' (exclusive classes) for logits."
            )
