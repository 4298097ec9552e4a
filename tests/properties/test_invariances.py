"""What must leave F as it is, and what must change it in a known way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

from monai_ifim.core import Decomposition, GaussianHead, decompose
from properties.subjects import LOGITS, Subject, subjects

pytestmark = pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.SpectralTieWarning")
DOUBLE = (torch.float64,)
IMPOSSIBLE = -1e4  # logit of a class whose probability is zero in any dtype


class Composed(nn.Module):
    """after(network(before(x)), x), in eval mode."""

    def __init__(
        self,
        network: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor, Tensor], Tensor] = lambda z, x: z,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)), x)


def whole(
    subject: Subject, logits_network: nn.Module | None = None, image: Tensor | None = None, **settings: Any
) -> Decomposition:
    """All that there is to be had, of another network or other images if given, with the subject's head if none is."""
    assume(subject.digits_lost * subject.tolerance < 1e-2)
    network = subject.network if logits_network is None else subject.finished(logits_network)
    settings = {"head": subject.likelihood, "energy": 1.0} | settings
    return decompose(network, subject.image if image is None else image, **settings)


def matrices(d: Decomposition) -> Tensor:
    """U diag(l) U^T of every image, [B, D, D] float64."""
    flat = d.eigenvectors.flatten(2).double()
    return torch.einsum("bki,bk,bkj->bij", flat, d.eigenvalues, flat)


def assert_same_matrix(subject: Subject, found: Tensor, expected: Tensor, cancelled: float = 0.0) -> None:
    """Of every image, to the rounding of the subject's dtype; cancelled: size of gradients that cancel inside the network."""
    for one, other in zip(found, expected, strict=True):
        trace, rounding = float(other.trace()), 100 * subject.eps * cancelled
        atol = subject.tolerance * subject.digits_lost * trace + 2 * rounding * trace**0.5 + rounding**2
        torch.testing.assert_close(one, other, rtol=0, atol=atol + 1e-300)


def generator_of(subject: Subject) -> torch.Generator:
    return torch.Generator().manual_seed(subject.seed + 3)


@given(subjects(("categorical", "softmax")), st.floats(-30, 30))
def test_adding_a_number_to_all_logits_changes_nothing(subject: Subject, constant: float) -> None:
    shifted = Composed(subject.logits_network, after=lambda z, x: z + constant)
    before, after = whole(subject), whole(subject, shifted)
    assert_same_matrix(subject, matrices(after), matrices(before))
    torch.testing.assert_close(after.probabilities, before.probabilities, rtol=0, atol=100 * subject.eps)


@given(subjects(("categorical", "softmax"), dtypes=DOUBLE), st.floats(-3, 3))
def test_adding_a_function_of_the_image_to_all_logits_changes_nothing(subject: Subject, slope: float) -> None:
    shifted = Composed(subject.logits_network, after=lambda z, x: z + slope * x.flatten(1).sin().sum(1, keepdim=True))
    assert_same_matrix(subject, matrices(whole(subject, shifted)), matrices(whole(subject)), cancelled=abs(slope) * subject.size)


@given(subjects())
def test_the_order_of_the_outputs_does_not_matter(subject: Subject) -> None:
    order = torch.randperm(subject.outputs, generator=generator_of(subject))
    permuted = Composed(subject.logits_network, after=lambda z, x: z[:, order])
    covariance = GaussianHead(covariance=subject.covariance[order][:, order])
    after = whole(subject, permuted, head=covariance if subject.head == "gaussian" else subject.likelihood)
    before = whole(subject)
    assert_same_matrix(subject, matrices(after), matrices(before))
    torch.testing.assert_close(after.probabilities, before.probabilities[:, order], rtol=0, atol=100 * subject.eps)


@given(subjects(), st.floats(0.01, 100))
def test_an_image_in_another_unit_scales_eigenvalues_and_keeps_eigenvectors(subject: Subject, unit: float) -> None:
    scaled = Composed(subject.logits_network, before=lambda x: x / unit)
    before, after = whole(subject), whole(subject, scaled, unit * subject.image)
    for b in range(subject.batch):
        most = min(before.spectrum.shape[1], after.spectrum.shape[1])
        atol = subject.tolerance * subject.digits_lost * float(before.trace[b]) + 1e-300
        torch.testing.assert_close(unit**2 * after.spectrum[b, :most], before.spectrum[b, :most], rtol=0, atol=atol)
    assert_same_matrix(subject, unit**2 * matrices(after), matrices(before))
    torch.testing.assert_close(unit**2 * after.trace, before.trace, rtol=subject.tolerance * subject.digits_lost, atol=1e-300)


@given(subjects(), st.floats(0.01, 100), st.integers(1, 4))
def test_an_image_in_another_unit_has_the_same_projector(subject: Subject, unit: float, rank: int) -> None:
    spectrum = whole(subject).spectrum
    assume(rank <= spectrum.shape[1])
    gaps = nn.functional.pad(spectrum, (0, 1)).diff(dim=1).neg()[:, rank - 1]
    noise = 10 * subject.tolerance * subject.digits_lost * spectrum.sum(1) / gaps  # Davis and Kahan
    assume(bool((noise < 0.1).all()))
    scaled = Composed(subject.logits_network, before=lambda x: x / unit)
    before, after = whole(subject, rank=rank), whole(subject, scaled, unit * subject.image, rank=rank)
    y = torch.randn(subject.image.shape, generator=generator_of(subject), dtype=torch.float64).to(subject.dtype)
    (high, _), (same, _) = before.project(y), after.project(y)
    torch.testing.assert_close(same, high, rtol=0, atol=float(noise.max()) * float(y.norm()))


@given(subjects(), st.floats(-5, 5))
def test_moving_the_origin_of_the_image_changes_nothing(subject: Subject, origin: float) -> None:
    moved = Composed(subject.logits_network, before=lambda x: x + origin)
    after = whole(subject, moved, subject.image - origin)
    nearly = whole(subject, image=subject.image - origin + origin)  # the very image, rounded as the other was
    assert_same_matrix(subject, matrices(after), matrices(nearly))


@given(subjects(batches=(2, 4)))
def test_each_image_of_a_batch_is_decomposed_as_if_it_were_alone(subject: Subject) -> None:
    together = whole(subject)
    for b in range(subject.batch):
        alone = whole(subject, image=subject.image[b : b + 1])
        assert_same_matrix(subject, matrices(together)[b : b + 1], matrices(alone))
        torch.testing.assert_close(together.trace[b], alone.trace[0], rtol=subject.tolerance * subject.digits_lost, atol=1e-300)
        assert together.rank[b] == alone.rank[0]
        torch.testing.assert_close(together.probabilities[b], alone.probabilities[0], rtol=0, atol=100 * subject.eps)


@given(subjects())
def test_permuted_voxels_have_a_permuted_decomposition(subject: Subject) -> None:
    order = torch.randperm(subject.size, generator=generator_of(subject))
    back = order.argsort()

    def shuffled(x: Tensor, places: Tensor) -> Tensor:
        return x.flatten(1)[:, places].reshape(x.shape)

    permuted = Composed(subject.logits_network, before=lambda x: shuffled(x, back))
    before, after = whole(subject), whole(subject, permuted, shuffled(subject.image, order))
    assert_same_matrix(subject, matrices(after), matrices(before)[:, order][:, :, order])
    for found, expected, trace in zip(after.sensitivity, shuffled(before.sensitivity, order), before.trace, strict=True):
        atol = subject.tolerance * subject.digits_lost * float(trace) + 1e-300
        torch.testing.assert_close(found, expected, rtol=0, atol=atol)


@given(subjects(dtypes=DOUBLE))
def test_turned_coordinates_have_a_turned_matrix(subject: Subject) -> None:
    noise = torch.randn(subject.size, subject.size, generator=generator_of(subject), dtype=torch.float64)
    turn, _ = torch.linalg.qr(noise)
    turned = Composed(subject.logits_network, before=lambda y: (y.flatten(1) @ turn).reshape(y.shape))
    image = (subject.image.flatten(1) @ turn.T).reshape(subject.image.shape)
    before, after = whole(subject), whole(subject, turned, image)
    assert_same_matrix(subject, matrices(after), turn @ matrices(before) @ turn.T)


@given(subjects(LOGITS), st.floats(-3, 3))
def test_an_output_that_never_changes_adds_nothing(subject: Subject, constant: float) -> None:
    """Of exclusive classes, one that cannot be."""
    value = IMPOSSIBLE if subject.exclusive else constant
    widened = Composed(subject.logits_network, after=lambda z, x: torch.cat([z, torch.full_like(z[:, :1], value)], dim=1))
    covariance = torch.block_diag(subject.covariance, torch.tensor([[0.7]], dtype=torch.float64))
    head = GaussianHead(covariance=covariance) if subject.head == "gaussian" else subject.likelihood
    assert_same_matrix(subject, matrices(whole(subject, widened, head=head)), matrices(whole(subject)))


@given(subjects(("categorical",), outputs=(2, 2)))
def test_two_classes_are_one_label_whose_logit_is_their_difference(subject: Subject) -> None:
    difference = Composed(subject.logits_network, after=lambda z, x: z[:, 1:] - z[:, :1])
    assert_same_matrix(subject, matrices(whole(subject, difference, head="bernoulli")), matrices(whole(subject)))


@given(subjects(("bernoulli",)))
def test_a_label_and_its_opposite_have_one_matrix(subject: Subject) -> None:
    signs = torch.where(torch.rand(subject.outputs, generator=generator_of(subject)) < 0.5, -1.0, 1.0).to(subject.dtype)
    renamed = Composed(subject.logits_network, after=lambda z, x: signs * z)
    assert_same_matrix(subject, matrices(whole(subject, renamed)), matrices(whole(subject)))


@given(subjects(("gaussian",), dtypes=DOUBLE))
def test_a_regression_in_other_coordinates_has_one_matrix(subject: Subject) -> None:
    """z' = A z + b with noise of covariance A Sigma A^T."""
    noise = torch.randn(subject.outputs, subject.outputs, generator=generator_of(subject), dtype=torch.float64)
    a = torch.linalg.qr(noise)[0] * torch.linspace(0.5, 2.0, subject.outputs, dtype=torch.float64)
    changed = Composed(subject.logits_network, after=lambda z, x: z @ a.T + 3.0)
    covariance = a @ subject.covariance @ a.T
    head = GaussianHead(covariance=(covariance + covariance.T) / 2)
    assert_same_matrix(subject, matrices(whole(subject, changed, head=head)), matrices(whole(subject)))
