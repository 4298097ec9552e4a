"""Saturated float32 predictions: the stable form keeps the whole spectrum, the textbook form loses it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import mpmath
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import decompose
from monai_ifim.core.dense import naive_gram_eigenvalues

Networks = Callable[..., nn.Sequential]
SHAPE = (1, 9, 7)
SPREAD = {"spread": [0.55, 1.0, 1.1, 0.95, 1.3], "ladder": [0.2, 0.4, 0.6, 0.8, 1.0]}  # of the gap, one for each other class
GAPS = pytest.mark.parametrize("gap", [25.0, 75.0, 150.0])
ORDERS = list(itertools.permutations([0, 1, 3, 4, 5]))[::15]  # in which the classes follow one another
KINDS = pytest.mark.parametrize("kind", ["spread", "ladder"])


def _saturate(network: nn.Sequential, image: Tensor, gap: float, kind: str, order: tuple[int, ...] = ORDERS[3]) -> nn.Sequential:
    """Shift the biases so that class 2 leads every other class by about `gap` times its entry of SPREAD."""
    wanted = torch.zeros(6)
    wanted[list(order)] = -gap * torch.tensor(SPREAD[kind])
    network[-1].bias.data += wanted - network(image)[0].detach()
    return network


def _image() -> Tensor:
    return torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(8))


def _analytic_eigenvalues(weight: Tensor, logits: Tensor) -> Tensor:
    """Nonzero eigenvalues of W^T (diag p - p p^T) W = those of L^T (diag p - p p^T) L with W W^T = L L^T, 400 digits."""
    with mpmath.workdps(400):
        rows = mpmath.matrix(weight.double().tolist())
        exponentials = [mpmath.exp(z) for z in logits.double().tolist()]
        p = mpmath.matrix([e / sum(exponentials) for e in exponentials])
        lower = mpmath.cholesky(rows * rows.T)
        values = mpmath.eigsy(lower.T * (mpmath.diag(list(p)) - p * p.T) * lower, eigvals_only=True)
        return torch.tensor(sorted((float(v) for v in values), reverse=True)[:-1], dtype=torch.float64)


@KINDS
@GAPS
def test_linear_float32_network_keeps_its_whole_spectrum_in_any_order_of_classes(linear: Networks, gap: float, kind: str) -> None:
    x = _image()
    for order in ORDERS:
        network = _saturate(linear(SHAPE, 6), x, gap, kind, order)
        d = decompose(network, x, energy=1.0)
        truth = _analytic_eigenvalues(network[-1].weight.detach(), d.logits[0])
        assert d.rank.tolist() == [5]
        torch.testing.assert_close(d.eigenvalues[0], truth, rtol=1e-4, atol=0)


@KINDS
@GAPS
def test_textbook_form_in_float32_loses_it(linear: Networks, gap: float, kind: str) -> None:
    x, trailing, lost = _image(), [], []
    for order in ORDERS:  # the eigensolver is lucky in some
        network = _saturate(linear(SHAPE, 6), x, gap, kind, order)
        truth = _analytic_eigenvalues(network[-1].weight.detach(), network(x)[0].detach())
        error = (naive_gram_eigenvalues(network, x)[:5].double() / truth - 1).abs()
        trailing.append(float(error[-1]))
        lost.append(int((error > 0.1).sum()))
    assert max(trailing) > 0.1
    assert max(lost) >= {25.0: 1, 75.0: 3, 150.0: 4}[gap]
    assert min(lost) >= {25.0: 0, 75.0: 1, 150.0: 3}[gap]


@GAPS
def test_textbook_form_in_float32_returns_nothing_but_zeros_where_every_class_is_far(linear: Networks, gap: float) -> None:
    x = _image()
    network = linear(SHAPE, 6)
    network[-1].bias.data += -network(x)[0].detach() - gap * torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    naive = naive_gram_eigenvalues(network, x)
    d = decompose(network, x, energy=1.0)
    truth = _analytic_eigenvalues(network[-1].weight.detach(), d.logits[0])
    assert bool((naive == 0).all()) == (gap == 150.0)
    torch.testing.assert_close(d.eigenvalues[0], truth, rtol=1e-4, atol=0)


@KINDS
@GAPS
def test_float32_cnn_agrees_with_its_float64_copy(cnn: Networks, gap: float, kind: str) -> None:
    x = _image()
    network = _saturate(cnn(SHAPE, 6), x, gap, kind)
    found = decompose(network, x, energy=1.0)
    truth = decompose(copy.deepcopy(network).double(), x.double(), energy=1.0)
    assert found.rank.tolist() == truth.rank.tolist() == [5]
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.sensitivity, truth.sensitivity, rtol=1e-3, atol=1e-4 * float(truth.sensitivity.max()))


@KINDS
@GAPS
def test_float32_cnn_keeps_the_float64_subspaces(cnn: Networks, gap: float, kind: str) -> None:
    x = _image()
    network = _saturate(cnn(SHAPE, 6), x, gap, kind)
    for rank in range(1, 6):
        found = decompose(network, x, rank=rank).eigenvectors[0].flatten(1).double()
        truth = decompose(copy.deepcopy(network).double(), x.double(), rank=rank).eigenvectors[0].flatten(1)
        torch.testing.assert_close(found.T @ found, truth.T @ truth, rtol=0, atol=1e-4)


@KINDS
@GAPS
def test_float64_form_agrees_with_truth_to_many_digits(linear: Networks, gap: float, kind: str) -> None:
    x = _image().double()
    network = _saturate(linear(SHAPE, 6).double(), x, gap, kind)
    d = decompose(network, x, energy=1.0)
    truth = _analytic_eigenvalues(network[-1].weight.detach(), d.logits[0])
    torch.testing.assert_close(d.eigenvalues[0], truth, rtol=1e-11, atol=0)
    torch.testing.assert_close(d.trace[0], truth.sum(), rtol=1e-11, atol=0)


@GAPS
def test_saturated_independent_labels_match_their_closed_form(linear: Networks, gap: float) -> None:
    x = _image()
    network = linear(SHAPE, 1)
    network[-1].bias.data += gap - network(x)[0].detach()
    d = decompose(network, x, head="bernoulli", energy=1.0)
    z = mpmath.mpf(d.logits.item())
    with mpmath.workdps(200):
        variance = mpmath.exp(-z) / (1 + mpmath.exp(-z)) ** 2
    truth = float(variance) * network[-1].weight.detach().double().square().sum()
    torch.testing.assert_close(d.eigenvalues[0, 0], truth, rtol=1e-6, atol=0)
