"""Every method against the textbook's whole matrix, and the matrix against what it is to mean: the KL of small steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, event, given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, MultivariateNormal, kl_divergence

from monai_ifim.core import Decomposition
from monai_ifim.core.dense import dense_jacobian
from properties.subjects import SMOOTH, Subject, selections, subjects

pytestmark = pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.SpectralTieWarning")
DOUBLE = (torch.float64,)
MANY = subjects(outputs=(12, 40), dtypes=DOUBLE, gaps=(0.0, 6.0), scales=(1.0, 0.01))
UNEQUAL = subjects(("categorical", "bernoulli"), outputs=(12, 40), dtypes=DOUBLE, ladders=(0.3, 1.0), gains=(1.0, 0.3))


def _atol(subject: Subject, b: int, fisher: Tensor) -> float:
    """What two ways of computing an entry of F may differ by; the textbook's own form cancels where p is near one."""
    cancelled = 1e-14 * float(dense_jacobian(subject.logits_network, subject.image[b : b + 1]).square().sum())
    return subject.tolerance * subject.digits_lost * float(fisher.trace()) + cancelled


def _distribution(subject: Subject, logits: Tensor) -> Distribution:
    """p(y | z) of one image as torch's own."""
    if subject.exclusive:
        return Categorical(logits=logits)
    if subject.head_of_logits == "bernoulli":
        return Independent(Bernoulli(logits=logits), 1)
    return MultivariateNormal(logits, subject.covariance)


def _true_matrix(d: Decomposition, b: int) -> Tensor:
    """U diag(l) U^T, [D, D]."""
    flat = d.eigenvectors[b].flatten(1).double()
    return flat.T @ (d.eigenvalues[b, :, None] * flat)


@given(subjects())
def test_exact_pairs_are_those_of_the_dense_matrix(subject: Subject) -> None:
    assume(subject.digits_lost * subject.tolerance < 1e-2)
    d = subject.decompose(method="exact", energy=1.0)
    for b in range(subject.batch):
        fisher = subject.fisher(b)
        atol = _atol(subject, b, fisher)
        kept = int(d.rank[b])
        values = torch.linalg.eigvalsh(fisher).flip(0)
        found = torch.zeros(subject.size, dtype=torch.float64)
        found[:kept] = d.eigenvalues[b, :kept]
        torch.testing.assert_close(found, values, rtol=0, atol=atol)
        torch.testing.assert_close(d.trace[b], fisher.trace(), rtol=0, atol=atol)
        torch.testing.assert_close(d.sensitivity[b].flatten(), fisher.diagonal(), rtol=0, atol=atol)
        torch.testing.assert_close(_true_matrix(d, b), fisher, rtol=0, atol=atol)


@given(UNEQUAL, selections(4), st.sampled_from((0.3, 1e-2, 1e-4)), st.integers(0, 2**40))
def test_adaptive_stays_below_exact_and_within_its_tolerance(
    subject: Subject, selection: dict[str, Any], tolerance: float, seed: int
) -> None:
    """Columns left out only lower eigenvalues, each by at most their trace (Weyl); the bound says what that is at most, but in
    one of twenty draws it may be wrong."""
    truth = subject.decompose(method="exact", energy=1.0)
    d = subject.decompose(method="adaptive", tolerance=tolerance, seed=seed, **selection)
    event(str(d.record["method"]))
    assert d.record["jacobian_products"] <= subject.outputs - subject.exclusive + 1
    for b, kept in enumerate(d.rank.tolist()):
        found, expected = d.eigenvalues[b, :kept], truth.spectrum[b, :kept]
        known, rounding = float(d.spectrum[b].sum()), 1e-9 * float(truth.trace[b])
        left = float(truth.trace[b]) - known
        assert bool((found <= expected + rounding).all())
        assert bool((expected - found <= left + rounding).all())
        share = float(d.error_bound[b])
        promised = known * share / (1 - share) if share < 1 else float("inf")
        if left <= promised + rounding:
            assert bool((expected - found <= tolerance * expected + rounding).all())
        else:
            event("the bound missed")
            assert left <= 1e8 * promised  # such a draw comes once in 250000


@given(st.one_of(MANY, UNEQUAL), st.integers(1, 4), st.sampled_from((1e-2, 1e-4, 1e-6)), st.integers(0, 2**40))
def test_matrix_free_agrees_with_exact_within_its_tolerance(subject: Subject, rank: int, tolerance: float, seed: int) -> None:
    """A residual says that an eigenvalue is that near. That none above it was overlooked is as certain as the random start has a
    part in every eigenvector: after a few steps already one start in hundreds does overlook the first."""
    truth = subject.decompose(method="exact", energy=1.0)
    d = subject.decompose(method="matrix_free", tolerance=tolerance, seed=seed, rank=rank)
    for b, kept in enumerate(d.rank.tolist()):
        rounding = 1e-9 * float(truth.trace[b])
        assert kept == min(rank, int(truth.rank[b]))
        found, expected = d.eigenvalues[b, :kept], truth.eigenvalues[b, :kept]
        assert bool((found <= expected + rounding).all())
        if bool((expected - found > tolerance * expected + rounding).any()):
            event(f"overlooked, or too near to be told apart, at {tolerance}")
            gaps = truth.spectrum[b, : kept + 1].diff().abs()
            assert tolerance == 1e-2 or bool((gaps < 2 * tolerance * float(truth.trace[b])).any())
            continue
        vectors, residuals = d.eigenvectors[b, :kept].flatten(1), d.residuals[b, :kept]
        true_residuals = (vectors @ _true_matrix(truth, b) - found[:, None] * vectors).norm(dim=1)
        cancelled = 1e-7 * float(truth.trace[b]) ** 1.5 / found.clamp_min(1e-300).sqrt()  # residuals are roots of differences
        assert bool((true_residuals <= (1 + tolerance) * residuals + cancelled).all())
        assert bool((residuals <= tolerance * found + cancelled).all())


@given(subjects(activations=SMOOTH, dtypes=DOUBLE), st.booleans())
def test_small_steps_cost_half_the_quadratic_form(subject: Subject, leading: bool) -> None:
    d = subject.decompose(energy=1.0)
    for b in range(subject.batch):
        x = subject.image[b : b + 1]
        direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(subject.seed), dtype=torch.float64)
        if leading and int(d.rank[b]):
            direction = d.eigenvectors[b, :1].clone()
        direction /= direction.norm()
        slope = float(dense_jacobian(subject.logits_network, x).norm())
        step = 1e-3 / max(slope, 1.0)
        here, *there = (subject.logits_network(x + e * direction)[0].detach() for e in (0.0, step, -step))
        costs = [kl_divergence(_distribution(subject, here), _distribution(subject, z)) for z in there]
        quadratic = 0.5 * step**2 * (d.eigenvalues[b] * (d.eigenvectors[b] * direction).flatten(1).sum(1).square()).sum()
        torch.testing.assert_close(torch.stack(costs).mean(), quadratic, rtol=1e-3, atol=1e-14)
