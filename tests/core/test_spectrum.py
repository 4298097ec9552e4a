"""Eigenvalues of graded matrices against 600-digit arithmetic."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from torch import Tensor

from monai_ifim.core import IFIMError, spectrum
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.base import enough
from monai_ifim.core.spectrum import Spectrum, count_kept, cuts_through_tie, solve_spectrum

EPS = torch.finfo(torch.float64).eps


def _gram(size: int, seed: int = 0) -> Tensor:
    """Gram matrix of well-conditioned rows of small integers, exact in float64."""
    rows = torch.randint(-4, 5, (size, 4 * size), generator=torch.Generator().manual_seed(seed)).double()
    return rows @ rows.T


def _truth(gram: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and unit eigenvectors (rows) of diag(scales) gram diag(scales)."""
    with mpmath.workdps(600):
        weights = [mpmath.mpf(s) for s in scales.tolist()]
        rows = gram.tolist()
        n = len(rows)
        kernel = mpmath.matrix(n, n)
        for i in range(n):
            for j in range(n):
                kernel[i, j] = weights[i] * mpmath.mpf(rows[i][j]) * weights[j]
        values, vectors = mpmath.eigsy(kernel)
        order = sorted(range(n), key=lambda i: -values[i])
        eigenvectors = [[float(vectors[r, i]) for r in range(n)] for i in order]
        found = [float(values[i]) for i in order]
        return torch.tensor(found, dtype=torch.float64), torch.tensor(eigenvectors, dtype=torch.float64)


def _assert_true(found: Spectrum, gram: Tensor, scales: Tensor) -> None:
    values, vectors = _truth(gram, scales)
    torch.testing.assert_close(found.eigenvalues, values, rtol=1e-10, atol=0)
    cosines = (found.coefficients * vectors).sum(1).abs()
    torch.testing.assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.trace, values.sum().item(), rtol=1e-12, atol=0)


def _scales(size: int, decades: float, seed: int = 3) -> Tensor:
    """Scales from 1 down to 10^-decades in random order."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    return 10.0 ** -torch.linspace(0, decades, size, dtype=torch.float64)[order]


@pytest.mark.parametrize("decades", [0.0, 1.0, 4.0, 15.0, 30.0, 60.0, 120.0])
@pytest.mark.parametrize("size", [2, 5, 8])
def test_every_eigenvalue_of_a_graded_matrix_has_ten_digits(size: int, decades: float) -> None:
    gram, scales = _gram(size), _scales(size, decades)
    _assert_true(solve_spectrum(gram, scales, EPS), gram, scales)


@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e60, 1e140])
def test_a_common_factor_neither_underflows_nor_overflows(scale: float) -> None:
    gram, scales = _gram(5), scale * _scales(5, 8.0)
    _assert_true(solve_spectrum(gram, scales, EPS), gram, scales)


def test_rows_of_unequal_length_are_as_good_as_unequal_scales() -> None:
    lengths = _scales(6, 40.0)
    gram = lengths[:, None] * _gram(6) * lengths
    found = solve_spectrum(gram, torch.ones(6).double(), EPS)
    torch.testing.assert_close(found.eigenvalues, _truth(_gram(6), lengths)[0], rtol=1e-10, atol=0)


def test_both_solvers_give_the_same_where_both_are_good(monkeypatch: pytest.MonkeyPatch) -> None:
    gram, scales = _gram(7), _scales(7, 1.0)
    direct = solve_spectrum(gram, scales, EPS)
    monkeypatch.setattr(spectrum, "GRADED", 1.1)
    rotated = solve_spectrum(gram, scales, EPS)
    torch.testing.assert_close(rotated.eigenvalues, direct.eigenvalues, rtol=1e-12, atol=0)
    torch.testing.assert_close((rotated.coefficients @ direct.coefficients.T).abs(), torch.eye(7).double(), rtol=0, atol=1e-11)
    _assert_true(rotated, gram, scales)


def test_absolute_accuracy_is_not_enough_for_a_graded_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    gram, scales = _gram(6), _scales(6, 15.0)
    monkeypatch.setattr(spectrum, "LARGEST_JACOBI", 0)
    resolved = solve_spectrum(gram, scales, EPS).eigenvalues
    truth, _ = _truth(gram, scales)
    assert 1 <= resolved.numel() < 6  # what eigh cannot resolve is left out, not invented
    torch.testing.assert_close(resolved, truth[: resolved.numel()], rtol=0, atol=1e-13 * float(truth[0]))


@pytest.mark.parametrize("decades", [1.0, 60.0])
def test_order_of_the_rows_does_not_matter(decades: float) -> None:
    gram, scales = _gram(7), _scales(7, decades)
    plain = solve_spectrum(gram, scales, EPS)
    for seed in range(5):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        shuffled = solve_spectrum(gram[order][:, order], scales[order], EPS)
        torch.testing.assert_close(shuffled.eigenvalues, plain.eigenvalues, rtol=1e-12, atol=0)
        cosines = (shuffled.coefficients * plain.coefficients[:, order]).sum(1).abs()
        torch.testing.assert_close(cosines, torch.ones(7).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("decades", [0.0, 3.0, 30.0])
def test_rows_that_repeat_others_add_no_eigenvalue(decades: float) -> None:
    """Rows 3 and 4 are combinations of rows 0, 1, 2; weights rank deficient whatever the scales."""
    rows = torch.randint(-4, 5, (3, 20), generator=torch.Generator().manual_seed(1)).double()
    rows = torch.cat([rows, rows[:1] - rows[1:2], 2 * rows[2:3]])
    gram, scales = rows @ rows.T, _scales(5, decades)
    found = solve_spectrum(gram, scales, EPS)
    torch.testing.assert_close(found.eigenvalues, _truth(gram, scales)[0][:3], rtol=1e-10, atol=0)


@pytest.mark.parametrize("row_eps", [2.0**-18, 2.0**-10])
def test_rows_that_repeat_others_to_their_own_rounding_add_no_eigenvalue(row_eps: float) -> None:
    rows = torch.randn(3, 200, generator=torch.Generator().manual_seed(1)).double()
    rows = torch.cat([rows, rows[:1] - rows[1:2]])
    noise = torch.rand(rows.shape, generator=torch.Generator().manual_seed(2)).double() - 0.5
    rows = rows * (1 + row_eps * noise)
    for scales in (torch.ones(4).double(), torch.tensor([1.0, 1e-5, 1e-20, 1e-9], dtype=torch.float64)):
        assert solve_spectrum(rows @ rows.T, scales, row_eps).eigenvalues.numel() == 3
        assert solve_spectrum(rows @ rows.T, scales, EPS).eigenvalues.numel() == 4


def test_dead_rows_and_dead_scales_are_left_out() -> None:
    gram, scales = _gram(5), _scales(5, 3.0)
    gram[1], gram[:, 1], scales[3] = 0.0, 0.0, 0.0
    alive = torch.tensor([0, 2, 4])
    found = solve_spectrum(gram, scales, EPS)
    torch.testing.assert_close(found.eigenvalues, _truth(gram[alive][:, alive], scales[alive])[0], rtol=1e-10, atol=0)
    assert not found.coefficients[:, [1, 3]].any()


def test_information_beyond_float64_is_refused_and_not_called_infinite() -> None:
    gram = 1e308 * torch.eye(3, dtype=torch.float64)
    with pytest.raises(IFIMError, match="too large for float64: give the outputs or the image another unit"):
        solve_spectrum(gram, torch.full((3,), 1e200, dtype=torch.float64), EPS)


@pytest.mark.parametrize(
    ("energy", "rank", "bound", "known"),
    [
        (0.85, None, 1.9e-3, True),  # 4 + 3 + 2 of 10 hold 0.85; the bound is below 1e-3 of the smallest of them
        (0.85, None, 2.1e-3, False),
        (0.95, None, 1.1e-3, False),  # takes all four, whose smallest is 1
        (0.95, None, 0.9e-3, True),
        (0.85, 2, 2.9e-3, True),
        (0.85, 5, 0.0, False),  # more than have been found
    ],
)
def test_enough_is_known_where_the_rest_cannot_move_an_eigenvalue_further_than_the_tolerance(
    energy: float, rank: int | None, bound: float, known: bool
) -> None:
    """Weyl: F = F_known + R moves no eigenvalue by more than the trace of R."""
    values = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    found = solve_spectrum(torch.eye(4, dtype=torch.float64), values.sqrt(), EPS)
    torch.testing.assert_close(found.eigenvalues, values)
    assert enough(found, bound, Settings(energy=energy, rank=rank, tolerance=1e-3)) == known


def test_of_nothing_everything_is_known_and_of_an_unseen_rest_nothing() -> None:
    nothing = torch.zeros(2, 2, dtype=torch.float64)
    assert enough(solve_spectrum(nothing, torch.ones(2, dtype=torch.float64), EPS), 0.0, Settings())
    assert not enough(solve_spectrum(nothing, torch.ones(2, dtype=torch.float64), EPS, trace_outside=1.0), 1.0, Settings())
    half = solve_spectrum(torch.eye(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64), EPS, trace_outside=1.0)
    assert not enough(half, 0.0, Settings(energy=0.9))  # the kept one holds half of the trace


def test_nothing_alive_gives_no_eigenvalue() -> None:
    found = solve_spectrum(torch.zeros(4, 4).double(), torch.ones(4).double(), EPS)
    assert found.eigenvalues.shape == (0,)
    assert found.coefficients.shape == (0, 4)
    assert found.trace == 0.0


@pytest.mark.parametrize("size", [40, 41])
def test_coefficients_of_many_rows_are_orthonormal(size: int) -> None:
    found = solve_spectrum(_gram(size), _scales(size, 50.0), EPS)
    identity = torch.eye(size, dtype=torch.float64)
    torch.testing.assert_close(found.coefficients @ found.coefficients.T, identity, rtol=0, atol=1e-11)
    assert bool((found.eigenvalues[:-1] >= found.eigenvalues[1:]).all())


def _spectrum(*values: float) -> Spectrum:
    """A spectrum of these eigenvalues, whose sums and shares float64 holds exactly."""
    return solve_spectrum(torch.eye(len(values), dtype=torch.float64), torch.tensor(values, dtype=torch.float64).sqrt(), EPS)


@pytest.mark.parametrize(("energy", "kept"), [(0.25, 1), (0.5, 1), (0.500001, 2), (0.75, 2), (0.750001, 3), (1.0, 3)])
def test_a_share_that_is_held_exactly_needs_no_further_component(energy: float, kept: int) -> None:
    found = _spectrum(4.0, 4.0, 8.0)
    exact = Spectrum(torch.tensor([8.0, 4.0, 4.0]).double(), found.roots, found.coefficients, 16.0)
    assert count_kept(exact, energy, None) == kept


def test_a_share_beyond_what_was_computed_keeps_all_that_was() -> None:
    found = _spectrum(9.0, 4.0)
    assert count_kept(Spectrum(found.eigenvalues, found.roots, found.coefficients, 26.0), 0.9, None) == 2


@pytest.mark.parametrize(("kept", "tied"), [(0, False), (1, False), (2, True), (3, False), (4, False)])
def test_a_tie_is_between_the_last_kept_and_the_first_dropped(kept: int, tied: bool) -> None:
    assert cuts_through_tie(_spectrum(9.0, 4.0, 4.0 * (1 - 1e-9), 1.0), kept, 1e-6) == tied
    assert not cuts_through_tie(_spectrum(9.0, 4.0, 4.0 * (1 - 1e-5), 1.0), kept, 1e-6)


@pytest.mark.parametrize("decades", [1.0, 40.0])
def test_the_memory_of_the_gram_matrix_can_be_used(decades: float) -> None:
    """At a thousand rows each copy of the matrix would take 8 MB of a memory budget."""
    gram, scales = _gram(9), _scales(9, decades)
    truth, given = solve_spectrum(gram, scales, EPS), gram.clone()
    found = solve_spectrum(given, scales, EPS, overwrite_gram=True)
    assert not torch.equal(given, gram)
    for name in ("eigenvalues", "roots", "coefficients"):
        assert torch.equal(getattr(found, name), getattr(truth, name))
    assert found.trace == truth.trace


def test_a_large_matrix_of_few_directions_has_their_eigenpairs() -> None:
    """300 rows in a space of 41 dimensions, against numpy's singular values."""
    rows = torch.randn(300, 41, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = solve_spectrum(rows @ rows.T, torch.ones(300).double(), EPS)
    left, singular, _ = np.linalg.svd(rows.numpy(), full_matrices=False)
    np.testing.assert_allclose(found.roots.numpy(), singular, rtol=1e-11)
    np.testing.assert_allclose(np.abs(np.sum(found.coefficients.numpy() * left.T, axis=1)), 1.0, rtol=1e-10)
