"""The head of a classifier of mutually exclusive classes."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Answers, Head
from monai_ifim.core.heads.divergence import log_partition_remainder
from monai_ifim.core.heads.outputs import as_float64, sums_to_one
from monai_ifim.core.heads.square_root import SquareRoot, exclusive_root


class CategoricalHead(Head):
    """Mutually exclusive classes, output = logits; the stable reduced form with C - 1 products.

    With m the predicted class, q the other probabilities, s = sqrt(q), r = sqrt(p_m) and a = 1 / (1 + r),
    diag(q) - q q^T = B B^T for B = diag(s)(I - a s s^T) exactly. Column j of S is s_j (e_j - a q - r e_m): nothing in it
    cancels, and s_j comes from the log-softmax in float64.

    >>> import torch
    >>> z = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    >>> root = CategoricalHead().square_root(z)
    >>> s = (root.scales[..., None] * root.cotangents(0, 2))[0]
    >>> p = z.softmax(1)[0]
    >>> bool(torch.allclose(s.T @ s, torch.diag(p) - torch.outer(p, p), atol=1e-15))
    True
    """

    name: ClassVar[str] = "categorical"
    answers: ClassVar[Answers] = "class"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C - 1."""
        return exclusive_root(functional.log_softmax(as_float64(output), dim=1))

    def log_odds(self, output: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """t = z_c - log sum of exp over the others; dt/dz = e_c - softmax over the others."""
        z = as_float64(output)
        others = z.index_fill(1, torch.tensor(label, device=z.device), -torch.inf)
        direction = -functional.softmax(others, dim=1)
        direction[:, label] = 1.0
        return z[:, label] - others.logsumexp(1), direction

    def probabilities(self, output: Tensor) -> Tensor:
        """Softmax in float64."""
        return functional.softmax(as_float64(output), dim=1)

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """d log p_c = dz_c - sum_k p_k dz_k."""
        moved, p = as_float64(changes), self.probabilities(output)[:, None]
        return moved - (p * moved).sum(2, keepdim=True)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """KL of two softmaxes from the logit differences against the predicted class."""
        z, change = as_float64(output), as_float64(moved) - as_float64(output)
        predicted = z.argmax(1, keepdim=True)
        p = functional.softmax(z, dim=1)
        return log_partition_remainder(p, change - change.gather(1, predicted))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError for a single class, and for values that are already probabilities."""
        if output.shape[1] < 2:
            raise HeadError(
                "head 'categorical' needs at least two outputs and the network gives one: "
                "pass head='bernoulli' for one logit of a binary answer, or head='gaussian' for a regression."
            )
        if sums_to_one(output) or operation == "softmax":
            raise HeadError(
                "the network's output is already a softmax (no negative value, each row sums to one) where logits are "
                "expected: pass head='probabilities', or, for more digits, remove the softmax from the network."
            )
