"""What the result of a solver becomes: the bound of what was not computed, residuals and signs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_ifim.core.assembly import assemble
from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.memory.row_storage import HeldRow
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import Subspace

EPS = torch.finfo(torch.float64).eps


def _assembled(outside: list[float], bound: list[float], score: Tensor | None = None, **settings: object) -> Decomposition:
    """Two images [1, 2, 3] with orthogonal rows of squared lengths 9 and 4, and what is outside of them."""
    image = torch.randn(2, 1, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.zeros(2, 2, 6, dtype=torch.float64)
    rows[:, 0, 4], rows[:, 1, 1] = -1.0, 1.0
    scales = [torch.full((2,), 3.0, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)]
    score = torch.zeros(2, 2, dtype=torch.float64) if score is None else score
    columns = FactorRows(image, [HeldRow(row) for row in rows.unbind(1)], scales)
    totals = [torch.tensor(values, dtype=torch.float64) for values in (outside, bound)]
    subspace = Subspace("adaptive", columns, score, *totals, confidence=0.95)
    output = torch.zeros(2, 3, dtype=torch.float64)
    return assemble(CategoricalHead(), image, output, subspace, Settings(**({"energy": 1.0} | settings)), EPS, {})


def test_error_bound_is_the_bound_over_the_known_trace_and_the_bound() -> None:
    d = _assembled([1.0, 0.0], [3.0, 0.0])
    torch.testing.assert_close(d.error_bound, torch.tensor([3.0 / (13.0 + 3.0), 0.0]).double())
    assert d.record["error_bound"] == pytest.approx(3 / 16)
    torch.testing.assert_close(d.trace, torch.tensor([14.0, 13.0]).double())


def test_error_bound_stays_one_where_nothing_is_known_beside_what_is_outside() -> None:
    assert _assembled([1e30, 0.0], [3e30, 0.0]).error_bound.tolist() == [1.0, 0.0]


def test_trace_outside_bounds_the_residual_of_every_kept_pair() -> None:
    d = _assembled([1.0, 0.5], [3.0, 0.75])
    assert d.residuals.tolist() == [[3.0, 3.0], [0.75, 0.75]]


def test_energy_counts_what_is_outside() -> None:
    assert _assembled([0.0, 0.0], [0.0, 0.0], energy=9 / 13).rank.tolist() == [1, 1]
    assert _assembled([1.0, 0.0], [1.0, 0.0], energy=9 / 13).rank.tolist() == [2, 1]


def test_eigenvectors_without_a_score_have_their_largest_entry_positive() -> None:
    d = _assembled([0.0, 0.0], [0.0, 0.0])
    assert d.eigenvectors.flatten(2)[0].nonzero().tolist() == [[0, 4], [1, 1]]
    assert bool((d.eigenvectors.flatten(2).sum(2) > 0).all())


def test_a_score_turns_eigenvectors_to_where_the_prediction_gains() -> None:
    score = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    d = _assembled([0.0, 0.0], [0.0, 0.0], score)
    assert d.eigenvectors.flatten(2)[:, 0, 4].tolist() == [-1.0, 1.0]
    assert d.eigenvectors.flatten(2)[:, 1, 1].tolist() == [-1.0, 1.0]


def test_sensitivity_is_the_sum_of_the_squared_rows() -> None:
    d = _assembled([0.0, 0.0], [0.0, 0.0], rank=1)
    expected = torch.zeros(2, 1, 2, 3, dtype=torch.float64)
    expected.flatten(1)[:, 4], expected.flatten(1)[:, 1] = 9.0, 4.0
    torch.testing.assert_close(d.sensitivity, expected)
