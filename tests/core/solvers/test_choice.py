"""Every method against the dense matrix over the whole table of cases, and which of them `auto` takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core_cases import Case
from monai_ifim.core import Decomposition, IFIMError, decompose
from monai_ifim.core.dense import top_eigenpairs

Networks = Callable[..., nn.Sequential]
SHORTCUTS = pytest.mark.parametrize("method", ["adaptive", "matrix_free"])
SELECTIONS = pytest.mark.parametrize("selection", [{"energy": 1.0}, {"energy": 0.7}, {"rank": 1}], ids=str)


def _projector(vectors: Tensor) -> Tensor:
    rows = vectors.flatten(1).double()
    return rows.T @ rows


@SHORTCUTS
@SELECTIONS
def test_kept_pairs_are_those_of_the_dense_matrix(case: Case, method: str, selection: dict[str, float]) -> None:
    d = decompose(case.network, case.image, head=case.likelihood, method=method, tolerance=1e-6, **selection)
    for b, fisher in enumerate(case.fisher):
        rank = int(d.rank[b])
        values, vectors = top_eigenpairs(fisher, rank)
        assert rank == {1.0: case.rank, None: 1}.get(selection.get("energy"), rank)
        torch.testing.assert_close(d.eigenvalues[b, :rank], values, rtol=10 * case.tolerance, atol=0)
        torch.testing.assert_close(
            _projector(d.eigenvectors[b, :rank]), _projector(vectors), rtol=0, atol=max(1e-5, 2 * case.tolerance)
        )
        torch.testing.assert_close(d.trace[b], fisher.trace(), rtol=10 * case.tolerance, atol=0)


@SHORTCUTS
def test_residual_bounds_hold(case: Case, method: str) -> None:
    d = decompose(case.network, case.image, head=case.likelihood, method=method, tolerance=1e-3, rank=2)
    for b, fisher in enumerate(case.fisher):
        for i in range(int(d.rank[b])):
            u = d.eigenvectors[b, i].flatten().double()
            residual = (fisher @ u - d.eigenvalues[b, i] * u).norm()
            assert float(residual) <= float(d.residuals[b, i]) + case.tolerance * float(d.eigenvalues[b, 0])


def _peaked(linear: Networks, classes: int, gap: float) -> tuple[nn.Sequential, Tensor]:
    """A linear network whose classes beyond the fourth are `gap` nats and more below; one image beside it."""
    x = torch.randn(1, 1, 11, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    network = linear((1, 11, 9), classes).double()
    wanted = torch.cat([torch.tensor([0.0, -0.7, -1.1, -2.0]), -gap - 0.05 * torch.arange(classes - 4)]).double()
    network[-1].bias.data += wanted - network(x)[0].detach()
    return network, x


def _chosen(d: Decomposition) -> tuple[str, str]:
    return d.record["method"], d.record["method_reason"]


def test_auto_computes_everything_where_that_is_cheap(linear: Networks) -> None:
    network, x = _peaked(linear, 9, 30.0)
    method, reason = _chosen(decompose(network, x))
    assert method == "exact"
    assert "8 column(s)" in reason


def test_auto_is_adaptive_where_few_classes_count(linear: Networks) -> None:
    network, x = _peaked(linear, 60, 25.0)
    d = decompose(network, x)
    assert _chosen(d)[0] == "adaptive"
    assert d.record["jacobian_products"] < 15
    truth = decompose(network, x, method="exact")
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-4, atol=0)


def test_auto_is_matrix_free_where_a_few_of_many_equal_columns_are_asked_for(linear: Networks) -> None:
    network, x = _peaked(linear, 260, 0.5)
    assert _chosen(decompose(network, x, rank=2))[0] == "matrix_free"
    assert _chosen(decompose(network, x, energy=0.99))[0] == "exact"
    assert _chosen(decompose(network, x, rank=200))[0] == "exact"


def test_record_says_what_was_asked_for(linear: Networks) -> None:
    network, x = _peaked(linear, 6, 3.0)
    record = decompose(network, x, method="matrix_free", rank=1, tolerance=1e-3, seed=5).record
    assert (record["method"], record["method_reason"]) == ("matrix_free", "asked for")
    asked = {"method": "matrix_free", "rank": 1, "tolerance": 1e-3, "seed": 5}
    assert asked.items() <= record["settings"].items()


@SHORTCUTS
def test_same_seed_gives_the_same_and_the_global_random_state_stays(linear: Networks, method: str) -> None:
    network, x = _peaked(linear, 70, 2.0)
    before = torch.get_rng_state()
    first, second = (decompose(network, x, method=method, rank=2, seed=11) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.eigenvectors, second.eigenvectors)
    assert torch.equal(first.trace, second.trace)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"tolerance": 0.0}, "relative error of eigenvalues"),
        ({"tolerance": True}, "relative error of eigenvalues"),
        ({"memory_budget": "lots"}, "such as '2GiB'"),
        ({"memory_budget": -1}, "such as '2GiB'"),
        ({"precision": "int8"}, "unknown precision 'int8'"),
        ({"seed": -1}, "whole number from 0 on"),
        ({"metric": "blur"}, "GaussianLowPass"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_cure(linear: Networks, settings: dict[str, object], message: str) -> None:
    network, x = _peaked(linear, 6, 3.0)
    with pytest.raises(IFIMError, match=message):
        decompose(network, x, **settings)  # type: ignore[arg-type]
