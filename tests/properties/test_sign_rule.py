"""The sign of an eigenvector: towards a more probable prediction, and the same however the question is put."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from monai_ifim.core import decompose
from properties.subjects import LOGITS, Subject, subjects

pytestmark = pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.SpectralTieWarning")
DOUBLE = (torch.float64,)
DECIDED = 1e-6  # share of the terms of a derivative that has to be left for its sign to be certain


class Rewritten(nn.Module):
    """The same classifier: its image in another unit, its outputs in another order, a number added to all of them."""

    def __init__(self, network: nn.Module, unit: float, order: Tensor, constant: float) -> None:
        super().__init__()
        self.network, self.unit, self.order, self.constant = network, unit, order, constant
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x / self.unit)[:, self.order] + self.constant
        return logits


def _slopes(subject: Subject, b: int, eigenvectors: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of log p(prediction) along eigenvectors [k, D], and the sums of the absolute values of their terms; both up to
    one positive factor, float64."""
    x = subject.image[b : b + 1].clone().requires_grad_(True)
    z = subject.logits_network(x)[0]
    answer = nn.functional.logsigmoid(z.abs()).sum()
    if subject.exclusive:  # log p_m = -log1p(sum exp(z_c - z_m)) rises with this, whose derivative keeps its digits
        m = int(z.argmax())
        answer = z[m] - torch.cat([z[:m], z[m + 1 :]]).logsumexp(0)
    (gradient,) = torch.autograd.grad(answer, x) if answer.requires_grad else (torch.zeros_like(x),)
    terms = eigenvectors * gradient.flatten()
    return terms.sum(1), terms.abs().sum(1)


@given(subjects(("categorical", "bernoulli"), dtypes=DOUBLE, gaps=(0.0, 2.0, 25.0)))
def test_a_step_along_an_eigenvector_makes_the_prediction_more_probable(subject: Subject) -> None:
    d = subject.decompose(energy=1.0)
    for b, kept in enumerate(d.rank.tolist()):
        slopes, terms = _slopes(subject, b, d.eigenvectors[b, :kept].flatten(1))
        assert bool((slopes >= -DECIDED * terms).all())


@given(subjects(("gaussian",)))
def test_an_eigenvector_of_a_regression_has_a_positive_largest_entry(subject: Subject) -> None:
    d = subject.decompose(energy=1.0)
    for vectors, kept in zip(d.eigenvectors.flatten(2), d.rank.tolist(), strict=True):
        largest = vectors[:kept].gather(1, vectors[:kept].abs().argmax(1, keepdim=True))
        assert bool((largest > 0).all())


@given(
    subjects(LOGITS, dtypes=DOUBLE),
    st.floats(0.1, 10),
    st.floats(-5, 5),
    st.sampled_from(("exact", "adaptive", "matrix_free")),
    st.integers(0, 2**40),
)
def test_the_sign_does_not_depend_on_how_the_question_is_put(
    subject: Subject, unit: float, constant: float, method: Any, seed: int
) -> None:
    order = torch.arange(subject.outputs)
    if subject.head != "gaussian":  # whose noise belongs to the outputs
        order = torch.randperm(subject.outputs, generator=torch.Generator().manual_seed(subject.seed))
    network = Rewritten(subject.logits_network, unit, order, constant if subject.exclusive else 0.0)
    settings: dict[str, Any] = {"head": subject.likelihood, "rank": 2}
    before = decompose(subject.network, subject.image, **settings)
    after = decompose(network, unit * subject.image, method=method, tolerance=1e-8, seed=seed, **settings)
    compared = 0
    for b, kept in enumerate(before.rank.tolist()):
        gaps = nn.functional.pad(before.spectrum[b], (1, 1), value=float("nan")).nan_to_num(0.0).diff().abs()
        for i in range(kept):
            certain = float(gaps[i : i + 2].min()) > 1e-4 * float(before.trace[b]) and _is_decided(
                subject, b, before.eigenvectors[b, i]
            )
            if certain:
                compared += 1
                torch.testing.assert_close(after.eigenvectors[b, i], before.eigenvectors[b, i], rtol=0, atol=1e-3)
    assume(compared)


def _is_decided(subject: Subject, b: int, vector: Tensor) -> bool:
    """Whether rounding can not turn the sign."""
    if subject.head == "gaussian":
        return abs(float(vector.max() + vector.min())) > 1e-2 * float(vector.abs().max())
    slope, terms = _slopes(subject, b, vector.reshape(1, -1))
    return float(slope) > 1e-3 * float(terms)
