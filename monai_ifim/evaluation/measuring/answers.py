"""What is measured of a classifier's answer: exclusive classes, or independent labels, each with an answer of its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core import BernoulliHead, CategoricalHead, Head, HeadError, IFIMError
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.heads.probabilities import BernoulliProbabilityHead, CategoricalProbabilityHead
from monai_ifim.evaluation.classifiers.labels import UNKNOWN, Label

__all__ = ["ExclusiveAnswers", "IndependentAnswers", "answers_of", "check_label", "has_independent_labels", "label_scalars"]

Columns = dict[str, Tensor | int]


def has_independent_labels(head: Head, outputs: int) -> bool:
    """True for a head of two labels or more that may hold together; one Bernoulli output counts as two exclusive classes."""
    return isinstance(head, (BernoulliHead, BernoulliProbabilityHead)) and outputs > 1


def check_label(label: Label | None, head: Head, outputs: int, where: str) -> None:
    """Raise IFIMError, with the cure, for a head that is no classifier's (HeadError), and for a label of another kind or size
    than its answers."""
    _check_head(head, outputs)
    independent, classes = has_independent_labels(head, outputs), max(2, outputs)
    if label is None:
        return
    if isinstance(label, tuple) and not independent:
        raise IFIMError(
            f"{where}: its label is a list of {len(label)}, and head {head.name!r} reads the outputs as exclusive classes: give "
            "the number or name of one class, or --set head=bernoulli if the labels are independent."
        )
    if isinstance(label, int) and independent:
        raise IFIMError(
            f"{where}: its label names one class, and head {head.name!r} reads {outputs} independent labels: give a list with 0, "
            "1 or -1 (unknown) for each, or --set head=categorical if the classes are exclusive."
        )
    if isinstance(label, tuple) and len(label) != outputs:
        raise IFIMError(f"{where}: its label has {len(label)} entries, and the network {outputs} outputs: give one for each.")
    if isinstance(label, int) and not 0 <= label < classes:
        raise IFIMError(f"label {label} is none of the {classes} classes: give 0 to {classes - 1}, or None where unknown.")


class ExclusiveAnswers:
    """Answers of exclusive classes: log_p [S, C >= 2] after each step, start [C] before."""

    def __init__(self, head: Head, before: Tensor, after: Tensor) -> None:
        self.log_p, self.start = _log_probabilities(head, after), _log_probabilities(head, before)[0]

    def columns(self, label: Label | None) -> Columns:
        """Columns of `measure_image` that are of the answers, for a true class."""
        p, predicted = self.log_p.exp(), int(self.start.argmax())
        change, answer = p[:, predicted] - self.start[predicted].exp(), p.argmax(1)
        unknown = torch.full_like(change, torch.nan)
        true = label if isinstance(label, int) else None
        return {
            "label": UNKNOWN if true is None else true,
            "predicted": predicted,
            "probability_change": change,
            "absolute_change": change.abs(),
            "flipped": (answer != predicted).to(p.dtype),
            "correct": unknown if true is None else (answer == true).to(p.dtype),
            "negative_log_likelihood": unknown if true is None else -self.log_p[:, true],
            **{f"p{c:02d}": p[:, c] for c in range(p.shape[1])},
        }


class IndependentAnswers:
    """Answers of independent labels, yes where the probability is above one half: logits [S, C] after each step, [C] before."""

    def __init__(self, head: Head, before: Tensor, after: Tensor) -> None:
        self.logits, self.start = _logits(head, after), _logits(head, before)[0]

    def columns(self, label: Label | None) -> Columns:
        """Columns of `measure_image` that are of the answers: means over the labels, of truth over those that are known; y00,
        y01, ... are the true labels."""
        z, start = self.logits, self.start
        p, yes = torch.sigmoid(z), start > 0
        change = p - torch.sigmoid(start)
        true = torch.tensor(label if isinstance(label, tuple) else (UNKNOWN,) * z.shape[1])
        losses = self.losses(z, true)
        right = torch.where(true == UNKNOWN, torch.nan, ((z > 0) == (true == 1)).to(z.dtype))
        return {
            "label": UNKNOWN,
            "predicted": UNKNOWN,  # no label is the answer
            "probability_change": torch.where(yes, change, -change).mean(1),
            "absolute_change": change.abs().mean(1),
            "flipped": ((z > 0) != yes).to(z.dtype).mean(1),
            "correct": right.nanmean(1),
            "negative_log_likelihood": losses.nanmean(1),
            **{f"p{c:02d}": p[:, c] for c in range(z.shape[1])},
            **{f"y{c:02d}": int(true[c]) for c in range(z.shape[1])},
        }

    @staticmethod
    def losses(logits: Tensor, true: Tensor) -> Tensor:
        """Negative log-likelihood of each label [..., C], NaN where it is not known."""
        of_truth = torch.where(true == 1, functional.logsigmoid(logits), functional.logsigmoid(-logits))
        return torch.where(true == UNKNOWN, torch.nan, -of_truth)


def answers_of(head: Head, before: Tensor, after: Tensor) -> ExclusiveAnswers | IndependentAnswers:
    """The answers for outputs [1, C] before and [S, C] after; raises HeadError for a head that is no classifier's."""
    if has_independent_labels(head, before.shape[1]):
        return IndependentAnswers(head, before, after)
    return ExclusiveAnswers(head, before, after)


def label_scalars(logits: Tensor, label: Label | None) -> dict[str, list[Any]]:
    """Of independent labels, one entry for each: its probability, the answer (1 above one half, else 0), and the negative
    log-likelihood of the truth, None where that is not known. logits: [C]."""
    z = as_float64(logits).cpu()
    true = torch.tensor(label if isinstance(label, tuple) else (UNKNOWN,) * len(z))
    losses: list[float] = IndependentAnswers.losses(z, true).tolist()
    return {
        "label_probabilities": torch.sigmoid(z).tolist(),
        "label_answers": (z > 0).to(torch.int64).tolist(),
        "label_losses": [None if math.isnan(loss) else loss for loss in losses],
    }


def _logits(head: Head, output: Tensor) -> Tensor:
    return as_float64(head.logits(output)).cpu()


def _log_probabilities(head: Head, output: Tensor) -> Tensor:
    """log p of every class, [B, C >= 2] float64 on the CPU; raises HeadError for a head that is no classifier's."""
    z = _logits(head, output)
    _check_head(head, z.shape[1])
    if isinstance(head, (BernoulliHead, BernoulliProbabilityHead)):
        return torch.cat([functional.logsigmoid(-z), functional.logsigmoid(z)], dim=1)
    return functional.log_softmax(z, dim=1)


def _check_head(head: Head, outputs: int) -> None:
    if not isinstance(head, (CategoricalHead, CategoricalProbabilityHead, BernoulliHead, BernoulliProbabilityHead)):
        raise HeadError(
            f"head {head.name!r} with {outputs} output(s) gives no classes: measure classifiers, with head 'categorical' for "
            "exclusive classes or 'bernoulli' for independent labels."
        )
