"""Trace probes: the risk that their bounds spend, and what is left of them once directions are removed."""

from __future__ import annotations

import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from core_cases import matrix_factor
from monai_ifim.core.solvers.trace_probes import CONFIDENCE, TraceProbes, chi_squared_quantile, slack

COLUMNS = 5


def _matrix() -> Tensor:
    """A of each image, [2, 12, 5]."""
    return torch.randn(2, 12, COLUMNS, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [1, 2, 5, 32])
def test_all_looks_together_spend_the_risk_once(count: int) -> None:
    """A bound fails where count |g|^2 / T is below count / slack; looks without end must not fail more often than stated."""
    risks = [float(stats.chi2.cdf(count / slack(count, look), count)) for look in range(400)]
    assert 0.999 * (1 - CONFIDENCE) < sum(risks) <= (1 - CONFIDENCE) * (1 + 1e-9)
    assert risks[0] == pytest.approx(0.8 * (1 - CONFIDENCE))
    assert all(later < earlier for earlier, later in itertools.pairwise(risks))


def test_more_probes_bring_the_bound_nearer_to_the_estimate() -> None:
    factors = [slack(count) for count in (1, 2, 4, 8, 16, 32, 1000)]
    assert factors == sorted(factors, reverse=True)
    assert 1.0 < factors[-1] < 1.1


def test_each_bound_is_a_look() -> None:
    probes = TraceProbes.draw(matrix_factor(_matrix()), 3, _generator())
    for look in range(4):
        assert probes.looks == look
        torch.testing.assert_close(probes.upper_bound(), probes.estimate() * slack(3, look))


def test_probes_are_the_factor_times_their_weights() -> None:
    probes, matrix = TraceProbes.draw(matrix_factor(_matrix()), 2, _generator(), known=2), _matrix()
    for omega, row, scale in zip(probes.weights, probes.rows, probes.scales, strict=True):
        assert bool((omega[:, :2] == 0).all())
        assert bool((omega[:, 2:] != 0).all())
        torch.testing.assert_close(row * scale[:, None], torch.einsum("bdc,bc->bd", matrix, omega))


def test_estimate_is_unbiased() -> None:
    estimates = TraceProbes.draw(matrix_factor(_matrix()), 4000, _generator()).estimate()
    torch.testing.assert_close(estimates, _matrix().square().sum((1, 2)), rtol=0.05, atol=0)


def test_removed_columns_and_directions_leave_the_product_of_the_rest() -> None:
    factor, matrix = matrix_factor(_matrix()), _matrix()
    probes = TraceProbes.draw(factor, 2, _generator())
    basis = torch.linalg.qr(torch.randn(2, COLUMNS - 1, COLUMNS - 1, generator=_generator(1), dtype=torch.float64))[0]
    v = torch.cat([torch.zeros(2, 1).double(), basis[:, :, 0]], dim=1)  # orthogonal to the first column's unit vector
    probes.remove_column(0, *factor.column(factor.cotangents(0, 1)[:, 0], 0))
    probes.remove(v, *factor.multiply(v))
    for omega, row, scale in zip(probes.weights, probes.rows, probes.scales, strict=True):
        rest = omega - (omega * v).sum(1, keepdim=True) * v
        rest[:, 0] = 0.0
        torch.testing.assert_close(row * scale[:, None], torch.einsum("bdc,bc->bd", matrix, rest))


def test_nothing_is_left_once_every_column_is_removed() -> None:
    factor = matrix_factor(_matrix())
    probes = TraceProbes.draw(factor, 2, _generator())
    for j in range(COLUMNS):
        probes.remove_column(j, *factor.column(factor.cotangents(j, j + 1)[:, 0], j))
    assert float(probes.upper_bound().max()) < 1e-25


def test_further_probes_are_averaged_in_and_looks_stay_counted() -> None:
    factor = matrix_factor(_matrix())
    probes, more = TraceProbes.draw(factor, 1, _generator(0)), TraceProbes.draw(factor, 3, _generator(1))
    expected = (probes.estimate() + 3 * more.estimate()) / 4
    probes.upper_bound()
    probes.extend(more)
    torch.testing.assert_close(probes.estimate(), expected)
    torch.testing.assert_close(probes.upper_bound(), expected * slack(4, 1))


@pytest.mark.parametrize("freedom", [1, 2, 3, 8, 30])
@pytest.mark.parametrize("probability", [1e-6, 0.01, 0.05, 0.5])
def test_chi_squared_quantile_is_scipy_s(freedom: int, probability: float) -> None:
    assert chi_squared_quantile(freedom, probability) == pytest.approx(stats.chi2.ppf(probability, freedom), rel=1e-8)
