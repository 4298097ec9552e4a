"""The head of independent labels, or of one binary logit."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Answers, Head
from monai_ifim.core.heads.divergence import log_partition_remainder
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.heads.square_root import SquareRoot, diagonal_root


class BernoulliHead(Head):
    """Independent labels (or one binary logit): column c of S is sqrt(p_c (1 - p_c)) e_c.

    The square root is exp((logsigmoid(z) + logsigmoid(-z)) / 2), which does not cancel for saturated labels.
    """

    name: ClassVar[str] = "bernoulli"
    answers: ClassVar[Answers] = "label"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C."""
        return independent_root(output)

    def log_odds(self, output: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """The label's own logit; dt/dz = e_c."""
        z = as_float64(output)
        direction = torch.zeros_like(z)
        direction[:, label] = 1.0
        return z[:, label], direction

    def probabilities(self, output: Tensor) -> Tensor:
        """Sigmoid in float64."""
        return torch.sigmoid(as_float64(output))

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """d log p_c = (1 - p_c) dz_c, of the label being present."""
        return as_float64(changes) * torch.sigmoid(-as_float64(output))[:, None]

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum of the KL of every label."""
        return label_divergences(output, moved).sum(1)

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError if a sigmoid or softmax made the output."""
        if operation in ("sigmoid", "softmax"):
            raise HeadError(
                f"the network's last operation is a {operation} where logits are expected: "
                f"pass head='probabilities', or, for more digits, remove the {operation} from the network."
            )


def independent_root(output: Tensor, where: Tensor | None = None) -> SquareRoot:
    """The root of `BernoulliHead` for logits [B, C]; where: bool [B, C], the columns of other labels are zero, None for all."""
    z = as_float64(output)
    scales = (0.5 * (functional.logsigmoid(z) + functional.logsigmoid(-z))).exp()
    # grad log p(labels) = sum_c (y_c - p_c) grad z_c, and |y_c - p_c| = sigmoid(-|z_c|) for the predicted labels.
    score = z.sign() * (0.5 * (functional.logsigmoid(-z.abs()) - functional.logsigmoid(z.abs()))).exp()
    if where is not None:
        scales, score = (each.masked_fill(~where.to(each.device), 0.0) for each in (scales, score))
    return diagonal_root(scales, score)


def label_divergences(output: Tensor, moved: Tensor) -> Tensor:
    """KL of each label, of the shape of the logits, written for its less likely answer."""
    z, change = as_float64(output), as_float64(moved) - as_float64(output)
    less_likely = torch.sigmoid(-z.abs())[..., None]
    towards = torch.where(z > 0, -change, change)[..., None]
    return log_partition_remainder(less_likely, towards)
