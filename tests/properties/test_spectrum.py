"""What every decomposition is: eigenpairs of a positive semidefinite matrix, and the split of the image by its projector."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from properties.subjects import LOGITS, PROBABILITIES, Subject, selections, subjects

pytestmark = pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.SpectralTieWarning")
SATURATED = st.one_of(
    subjects(LOGITS, gaps=(0.0, 3.0, 20.0, 90.0, 400.0, 720.0), ladders=(0.0, 0.5, 9.0), scales=(1.0, 0.01, 30.0)),
    subjects(PROBABILITIES, gaps=(0.0, 3.0, 20.0)),
)
VANISHED = Subject(
    (1, 1, 2), 2, "softmax", "linear", "tanh", 1, 1.0, 720.0, 0.0, torch.float64, 1, "normal", 1.0, "unit", 0
)  # the other class has a probability whose inverse is beyond float64
CANCELLING = Subject(
    (1, 5, 4), 6, "bernoulli", "deep perceptron", "softplus", 5, 0.3, 20.0, 0.0, torch.float64, 1, "ramp", 30.0, "unit", 508767256
)  # rows that are nearly combinations of one another
GRADED = Subject(
    (1, 1, 3), 3, "bernoulli", "convolution", "tanh", 1, 1.0, 400.0, 0.0, torch.float64, 1, "normal", 1.0, "unit", 1
)  # and of which one weighs 1e-87 of the others
METHODS = st.sampled_from(("exact", "adaptive", "matrix_free", "auto"))
UNDERFLOW = 1e-300  # nothing is asked of digits down there


def _random_images(subject: Subject, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(subject.seed + 2)
    return [torch.randn(subject.image.shape, generator=generator, dtype=torch.float64).to(subject.dtype) for _ in range(count)]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() * b.double()).flatten(1).sum(1)


@given(SATURATED, selections())
def test_eigenvalues_are_positive_descending_and_padded_with_zeros(subject: Subject, selection: dict[str, float]) -> None:
    d = subject.decompose(**selection)
    assert bool((d.spectrum >= 0).all())
    assert bool((d.spectrum.diff(dim=1) <= 0).all())
    for b, kept in enumerate(d.rank.tolist()):
        assert kept <= min(subject.outputs - subject.exclusive, subject.size)
        torch.testing.assert_close(d.eigenvalues[b, :kept], d.spectrum[b, :kept], rtol=0, atol=0)
        assert bool((d.eigenvalues[b, :kept] > 0).all())
        assert not d.eigenvalues[b, kept:].any()
        assert not d.eigenvectors[b, kept:].any()


@given(SATURATED, selections())
def test_trace_is_the_sum_of_the_eigenvalues_and_of_the_sensitivity_map(subject: Subject, selection: dict[str, float]) -> None:
    d = subject.decompose(**selection)
    rtol = 1e-12 if subject.dtype == torch.float64 else 1e-9  # rows within their rounding of heavier ones add nothing
    torch.testing.assert_close(d.spectrum.sum(1), d.trace, rtol=rtol, atol=UNDERFLOW)
    torch.testing.assert_close(d.sensitivity.flatten(1).sum(1), d.trace, rtol=1e-12, atol=UNDERFLOW)


@given(SATURATED, selections(), METHODS)
@example(VANISHED, {"energy": 1.0}, "exact")
@example(VANISHED, {"energy": 1.0}, "matrix_free")
def test_sensitivity_is_nowhere_negative(subject: Subject, selection: dict[str, float], method: str) -> None:
    d = subject.decompose(method=method, **selection)
    assert d.sensitivity.dtype == torch.float64
    assert bool((d.sensitivity >= 0).all())
    assert bool(torch.isfinite(d.sensitivity).all())


@given(SATURATED, selections(), METHODS)
@example(CANCELLING, {"energy": 1.0}, "exact")
@example(GRADED, {"energy": 1.0}, "exact")
def test_eigenvectors_are_orthonormal(subject: Subject, selection: dict[str, float], method: str) -> None:
    d = subject.decompose(method=method, **selection)
    for vectors, kept in zip(d.eigenvectors.flatten(2).double(), d.rank.tolist(), strict=True):
        gram = vectors[:kept] @ vectors[:kept].T
        torch.testing.assert_close(gram, torch.eye(kept, dtype=torch.float64), rtol=0, atol=100 * subject.eps)


@given(SATURATED, st.floats(0.01, 1.0))
def test_the_fewest_components_that_hold_the_energy_are_kept(subject: Subject, energy: float) -> None:
    d = subject.decompose(energy=energy)
    for spectrum, trace, kept in zip(d.spectrum, d.trace, d.rank.tolist(), strict=True):
        if float(trace) < UNDERFLOW:
            assert kept > 0 or float(spectrum.sum()) == 0.0
            continue
        assert float(spectrum[:kept].sum() / trace) >= energy - 1e-9
        assert float(spectrum[: kept - 1].sum() / trace) < energy + 1e-9


@given(SATURATED, selections(), METHODS)
def test_high_and_low_add_up_to_the_image(subject: Subject, selection: dict[str, float], method: str) -> None:
    before = subject.image.clone()
    d = subject.decompose(method=method, **selection)
    assert torch.equal(subject.image, before)
    assert d.high.dtype == d.low.dtype == subject.dtype
    size = float(before.abs().max() + d.high.abs().max())
    torch.testing.assert_close(d.high.double() + d.low.double(), before.double(), rtol=0, atol=2 * subject.eps * size)


@given(SATURATED, selections())
def test_projecting_the_image_itself_gives_its_high_and_low(subject: Subject, selection: dict[str, float]) -> None:
    d = subject.decompose(**selection)
    high, low = d.project(subject.image)
    assert torch.equal(high, d.high)
    assert torch.equal(low, d.low)


@given(SATURATED, selections())
def test_projector_is_idempotent(subject: Subject, selection: dict[str, float]) -> None:
    d = subject.decompose(**selection)
    for y in (subject.image, *_random_images(subject, 1)):
        high, low = d.project(y)
        atol = 100 * subject.eps * float(y.abs().max()) * subject.size**0.5
        torch.testing.assert_close(d.project(high)[0], high, rtol=0, atol=atol)
        torch.testing.assert_close(d.project(low)[0], torch.zeros_like(y), rtol=0, atol=atol)


@given(SATURATED, selections())
def test_projector_is_symmetric_and_linear(subject: Subject, selection: dict[str, float]) -> None:
    d = subject.decompose(**selection)
    a, b = _random_images(subject, 2)
    (high_a, low_a), (high_b, _) = d.project(a), d.project(b)
    atol = 100 * subject.eps * subject.size
    torch.testing.assert_close(_inner(high_a, b), _inner(a, high_b), rtol=0, atol=atol)
    torch.testing.assert_close(_inner(high_a, low_a), torch.zeros(subject.batch).double(), rtol=0, atol=atol)
    torch.testing.assert_close(d.project(2 * a - 3 * b)[0], 2 * high_a - 3 * high_b, rtol=0, atol=atol)


@given(SATURATED)
def test_the_same_call_gives_the_same_bits(subject: Subject) -> None:
    first, second = subject.decompose(), subject.decompose()
    for name in ("eigenvalues", "eigenvectors", "rank", "trace", "high", "low", "sensitivity"):
        assert torch.equal(getattr(first, name), getattr(second, name))
