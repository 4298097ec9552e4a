"""Every method against the textbook's whole matrix, and the matrix against what it is to mean: the KL of small steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, event, example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, MultivariateNormal, kl_divergence

from monai_ifim.core import ConvergenceWarning, Decomposition, decompose
from properties.subjects import SMOOTH, Subject, subjects

pytestmark = pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.SpectralTieWarning")
DOUBLE = (torch.float64,)
MANY = subjects(outputs=(12, 40), dtypes=DOUBLE, gaps=(0.0, 6.0, 25.0), scales=(1.0, 0.01))


def _projector(vectors: Tensor) -> Tensor:
    flat = vectors.flatten(1).double()
    return flat.T @ flat


def _atol(subject: Subject, fisher: Tensor, jacobian_norm: float) -> float:
    """What two ways of computing an entry of F may differ by; the textbook's own form cancels where p is near one."""
    return subject.tolerance * subject.digits_lost * float(fisher.diagonal().sum()) + 1e-14 * jacobian_norm


def _jacobian_norm(subject: Subject, b: int) -> float:
    """Sum of squares of J of the logits."""
    x = subject.image[b : b + 1].double().requires_grad_(True)
    logits = subject.logits_network.double()(x)[0]
    rows = [torch.autograd.grad(z, x, retain_graph=True, allow_unused=True)[0] for z in logits]
    subject.logits_network.to(subject.dtype)
    return float(sum(row.square().sum() for row in rows if row is not None))


@given(subjects())
def test_exact_pairs_are_those_of_the_dense_matrix(subject: Subject) -> None:
    assume(subject.digits_lost * subject.tolerance < 1e-2)
    d = subject.decompose(method="exact", energy=1.0)
    for b in range(subject.batch):
        fisher = subject.fisher(b)
        atol = _atol(subject, fisher, _jacobian_norm(subject, b))
        kept = int(d.rank[b])
        values = torch.linalg.eigvalsh(fisher).flip(0)
        found = torch.zeros(subject.size, dtype=torch.float64)
        found[:kept] = d.eigenvalues[b, :kept]
        torch.testing.assert_close(found, values, rtol=0, atol=atol)
        torch.testing.assert_close(d.trace[b], fisher.trace(), rtol=0, atol=atol)
        torch.testing.assert_close(d.sensitivity[b].flatten(), fisher.diagonal(), rtol=0, atol=atol)
        flat = d.eigenvectors[b, :kept].flatten(1).double()
        torch.testing.assert_close(flat.T @ (d.eigenvalues[b, :kept, None] * flat), fisher, rtol=0, atol=atol)
