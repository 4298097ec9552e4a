"""Estimates of F outside of a subspace: unbiased, with errors that are those of the estimates, against the matrix itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.solvers.krylov import LanczosBasis
from monai_ifim.core.solvers.remainder import Remainder, diagonal_error, sample_remainder, trace_error
from monai_ifim.core.solvers.trace_probes import CONFIDENCE

SIZE, COLUMNS, KNOWN = 13, 29, 3


@dataclass(frozen=True)
class Matrices:
    """A of each image, [B, 13, 29], as a factor without a network."""

    matrix: Tensor

    @property
    def image(self) -> Tensor:
        return torch.zeros(len(self.matrix), 1, 1, SIZE, dtype=torch.float64)

    @property
    def columns(self) -> int:
        return COLUMNS

    @property
    def root(self) -> SquareRoot:
        ones = torch.ones(len(self.matrix), COLUMNS, dtype=torch.float64)
        return SquareRoot(ones, ones, lambda start, stop: ones)

    def multiply(self, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.einsum("bdr,br->bd", self.matrix, v) / 4.0, torch.full((len(self.matrix),), 4.0, dtype=torch.float64)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _matrix() -> Tensor:
    """A of each image, [2, 13, 29], with rows of unequal lengths."""
    matrix = torch.randn(2, SIZE, COLUMNS, generator=_generator(3), dtype=torch.float64)
    return matrix * torch.linspace(0.2, 3.0, SIZE, dtype=torch.float64)[:, None]


def _basis(matrix: Tensor, known: int) -> Tensor:
    """[2, known, 29]: the leading right singular vectors of the first image, random ones of the second."""
    random = torch.linalg.qr(torch.randn(COLUMNS, known, generator=_generator(4), dtype=torch.float64))[0].T
    return torch.stack([torch.linalg.svd(matrix[0])[2][:known], random])


def _sampled(count: int, seed: int, known: int = KNOWN) -> Remainder:
    matrix = _matrix()
    factor: Any = Matrices(matrix)
    basis = LanczosBasis.empty(factor, known)
    for v in _basis(matrix, known).unbind(1):
        basis.append(v, torch.einsum("bdr,bd->br", matrix, torch.einsum("bdr,br->bd", matrix, v)))
    return sample_remainder(factor, basis, FactorRows(factor.image), count, _generator(seed))


def _truth(known: int = KNOWN) -> Tensor:
    """F - (A V)(A V)^T, [2, 13, 13]."""
    matrix = _matrix()
    inside = matrix @ _basis(matrix, known).mT
    return matrix @ matrix.mT - inside @ inside.mT


def test_estimates_are_unbiased() -> None:
    count, truth = 1000, _truth().diagonal(dim1=1, dim2=2)
    found = _sampled(count, seed=0)
    scatter = truth * (2 / count) ** 0.5  # of the mean of squares of normal numbers
    deviation = (found.diagonal - truth) / scatter
    assert float(deviation.abs().max()) < 4.0
    assert float(deviation.square().mean()) < 2.5
    torch.testing.assert_close(found.trace, found.diagonal.sum(1))
    assert bool(((found.trace - truth.sum(1)).abs() < 4 * found.trace_error).all())


@pytest.mark.parametrize("count", [2, 8])
def test_stated_error_of_the_trace_is_the_scatter_of_the_estimates(count: int) -> None:
    runs = [_sampled(count, seed) for seed in range(250)]
    traces, errors = (torch.stack([getattr(run, name) for run in runs]) for name in ("trace", "trace_error"))
    exact = (2 * _truth().square().sum((1, 2)) / count).sqrt()
    torch.testing.assert_close(errors.square().mean(0).sqrt(), exact, rtol=0.15, atol=0)
    torch.testing.assert_close(traces.std(0), exact, rtol=0.15, atol=0)


def test_bound_of_the_trace_holds_as_often_as_stated() -> None:
    runs = [_sampled(4, seed) for seed in range(300)]
    held = torch.stack([run.trace_bound >= _truth().diagonal(dim1=1, dim2=2).sum(1) for run in runs]).double().mean(0)
    assert bool((held >= CONFIDENCE - 0.02).all())


def test_error_of_the_diagonal_is_that_of_the_estimates_and_holds_them() -> None:
    runs = [_sampled(8, seed) for seed in range(300)]
    truth = _truth().diagonal(dim1=1, dim2=2)
    found, errors = (torch.stack([getattr(run, name) for run in runs]) for name in ("diagonal", "diagonal_error"))
    scatter = found.std(0)
    torch.testing.assert_close(scatter, truth * (2 / 8) ** 0.5, rtol=0.2, atol=0)
    stated = errors.square().mean(0).sqrt()
    assert bool((stated > 0.9 * scatter).all())  # its own, or that around it where it is larger
    assert float((stated / scatter).median()) < 1.6
    inside = ((found - truth).abs() <= 2 * errors).double().mean()
    assert 0.92 < float(inside) < 0.99


def test_error_of_a_voxel_is_its_own_or_that_around_it() -> None:
    diagonal = torch.tensor([1.0, 3.0, 1.0, 0.0, 0.0, 0.0, 2.0], dtype=torch.float64).reshape(1, 1, 1, 7)
    own = torch.tensor([1.0, 9.0, 1.0, 0.0, 0.0, 0.0, 4.0], dtype=torch.float64)
    around = torch.tensor([5.0, 11 / 3, 10 / 3, 1 / 3, 0.0, 4 / 3, 2.0], dtype=torch.float64)
    expected = (0.2 * torch.maximum(own, around)).sqrt()
    torch.testing.assert_close(diagonal_error(diagonal, 8).flatten(), expected)
    tiny = diagonal_error(diagonal * 1e-200, 8).flatten()  # whose square underflows
    torch.testing.assert_close(tiny * 1e200, expected)


def test_an_image_smaller_than_the_neighbourhood_has_errors() -> None:
    diagonal = torch.tensor([3.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 2, 1)
    expected = (0.2 * torch.tensor([9.0, 5.0], dtype=torch.float64)).sqrt()  # of the second voxel, the mean of 9 and 1
    torch.testing.assert_close(diagonal_error(diagonal, 8).flatten(), expected)


def test_channels_and_images_are_apart_in_it() -> None:
    diagonal = torch.zeros(2, 2, 3, 5, 4, dtype=torch.float64)
    diagonal[1, 0, 1, 2, 1] = 1.0
    error = diagonal_error(diagonal, 3)
    assert bool((error[0] == 0).all())
    assert bool((error[1, 1] == 0).all())
    assert int((error[1, 0] > 0).sum()) == 27
    assert float(error[1, 0, 1, 2, 1]) == pytest.approx((2 / 5) ** 0.5)


def test_error_of_the_trace_does_not_underflow() -> None:
    columns = torch.randn(2, 4, 6, generator=_generator(1), dtype=torch.float64)
    gram = columns @ columns.mT
    torch.testing.assert_close(trace_error(gram * 1e-200) * 1e200, trace_error(gram))
    assert trace_error(torch.zeros_like(gram)).tolist() == [0.0, 0.0]


def test_nothing_is_left_outside_of_a_whole_basis() -> None:
    found = _sampled(4, seed=0, known=COLUMNS)
    assert float(found.diagonal.max()) < 1e-24
    assert float(found.trace_bound.max()) < 1e-24
