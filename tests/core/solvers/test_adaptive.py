"""The adaptive method: what it saves, what it promises, and that the promise is kept for columns that conspire."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from core_cases import matrix_factor
from monai_ifim.core import decompose
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.solvers import adaptive
from monai_ifim.core.solvers.trace_probes import CONFIDENCE, TraceProbes

Networks = Callable[..., nn.Sequential]
SHAPE = (1, 13, 10)


def _image(batch: int = 1) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def _with_logits(network: nn.Sequential, x: Tensor, wanted: Tensor) -> nn.Sequential:
    network[-1].bias.data += wanted.to(x) - network(x[:1])[0].detach()
    return network


def test_thousand_classes_of_which_ten_count_take_a_handful_of_products(linear: Networks) -> None:
    x, network = _image(), linear(SHAPE, 1000).double()
    wanted = torch.full((1000,), -22.0)
    wanted[::100] = -torch.linspace(0, 5, 10)
    network = _with_logits(network, x, wanted)
    d, truth = (decompose(network, x, method=method, tolerance=1e-3) for method in ("adaptive", "exact"))
    assert int((d.probabilities > 1e-4).sum()) <= 10
    assert d.record["jacobian_products"] <= 33
    assert truth.record["jacobian_products"] == 999
    assert d.rank.tolist() == truth.rank.tolist()
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-3, atol=0)
    torch.testing.assert_close(d.high, truth.high, rtol=0, atol=1e-2)
    torch.testing.assert_close(d.trace, truth.trace, rtol=1e-3, atol=0)
    assert 0.0 < float(d.error_bound) < 1e-3


@pytest.mark.parametrize("slope", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-6])
@pytest.mark.parametrize("selection", [{"energy": 0.9}, {"rank": 2}], ids=str)
def test_never_more_than_one_product_beyond_exact_and_never_worse_than_the_tolerance(
    linear: Networks, slope: float, tolerance: float, selection: dict[str, float]
) -> None:
    x = _image()
    network = _with_logits(linear(SHAPE, 40).double(), x, -slope * torch.arange(40.0))
    d = decompose(network, x, method="adaptive", tolerance=tolerance, **selection)
    truth = decompose(network, x, method="exact", **selection)
    assert d.record["jacobian_products"] <= 40
    kept = int(d.rank)
    torch.testing.assert_close(d.eigenvalues[0], truth.spectrum[0, :kept], rtol=tolerance, atol=0)


def test_probes_added_after_a_look_stay_within_the_promise(monkeypatch: pytest.MonkeyPatch, linear: Networks) -> None:
    """Every number of columns and probes to begin with, and a rest that is heavier than its weights."""
    x, network = _image(), linear(SHAPE, 24).double()
    network[-1].weight.data[6:] *= 30.0
    network = _with_logits(network, x, -0.9 * torch.arange(24.0))
    for known in range(2, 18, 3):
        for probes in range(1, 23 - known, 4):
            monkeypatch.setattr("monai_ifim.core.solvers.adaptive.forecast", lambda *_, k=known, n=probes: (k, n))
            for tolerance in (0.3, 1e-2, 1e-5):
                d = decompose(network, x, method="adaptive", rank=2, tolerance=tolerance)
                assert d.record["jacobian_products"] <= 24


def test_columns_that_the_weights_hide_are_found_by_the_probe(linear: Networks) -> None:
    """Improbable classes with gradients a million times as long: by weight they are nothing, in F they are most."""
    x, network = _image(), linear(SHAPE, 50).double()
    network[-1].weight.data[30:] *= 1e6
    network = _with_logits(network, x, torch.cat([torch.zeros(3), torch.full((47,), -16.0)]))
    d, truth = (decompose(network, x, method=method, rank=3, tolerance=1e-2) for method in ("adaptive", "exact"))
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-2, atol=0)
    assert d.record["jacobian_products"] > 40


def test_last_columns_are_solved_for_from_the_probes(linear: Networks) -> None:
    x, network = _image(), linear(SHAPE, 50).double()
    network[-1].weight.data[49:] *= 1e8
    network = _with_logits(network, x, torch.cat([torch.zeros(3), -16.0 - 0.1 * torch.arange(47.0)]))
    d, truth = (decompose(network, x, method=method, rank=2, tolerance=1e-2) for method in ("adaptive", "exact"))
    assert d.record["method"] == "adaptive"
    assert d.record["jacobian_products"] <= 50
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-6, atol=0)
    torch.testing.assert_close(d.trace, truth.trace, rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", ["parallel", "independent", "one"])
def test_bound_holds_with_its_confidence_whatever_the_columns_left_out_are(kind: str) -> None:
    """Seeds as experiments: the bound may fail in one of twenty. Of parallel columns, random signs would miss many."""
    generator = torch.Generator().manual_seed(1)
    heads = torch.randn(3, 60, generator=generator, dtype=torch.float64)
    others = {
        "parallel": torch.randn(1, 60, generator=generator, dtype=torch.float64).expand(30, -1),
        "independent": torch.randn(30, 60, generator=generator, dtype=torch.float64),
        "one": torch.cat([torch.randn(1, 60, generator=generator, dtype=torch.float64), torch.zeros(29, 60).double()]),
    }[kind]
    network = nn.Sequential(nn.Flatten(), nn.Linear(60, 33)).double().eval()
    network[1].weight.data = torch.cat([heads, others])
    network[1].bias.data = torch.cat([torch.zeros(3), torch.full((30,), -18.0)]).double()
    x = torch.zeros(1, 1, 10, 6, dtype=torch.float64)
    exact = decompose(network, x, method="exact", energy=0.5)
    missed, runs = 0, 200
    for seed in range(runs):
        d = decompose(network, x, method="adaptive", energy=0.5, tolerance=0.5, seed=seed)
        known = float(d.spectrum.sum())
        left = float(exact.trace) - known
        missed += left / float(exact.trace) > float(d.error_bound) + 1e-9
    # A rate of 1 - CONFIDENCE would give this many or more with probability 0.001.
    assert missed <= stats.binom.isf(1e-3, runs, 1 - CONFIDENCE)
    assert d.record["confidence"] == CONFIDENCE


def test_trace_is_estimated_without_bias(linear: Networks) -> None:
    x, network = _image(), linear(SHAPE, 60).double()
    network = _with_logits(network, x, torch.cat([0.1 * torch.arange(4.0), torch.full((56,), -14.0)]))
    found = [decompose(network, x, method="adaptive", energy=0.5, tolerance=0.5, seed=seed) for seed in range(100)]
    assert len({d.record["jacobian_products"] for d in found}) == 1  # all stopped at their first look, which selects nothing
    left = float(decompose(network, x, method="exact").trace - found[0].spectrum.sum())
    estimates = torch.stack([(d.trace - d.spectrum.sum())[0] for d in found])
    assert 0.1 * left < float(estimates.std()) < left
    assert abs(float(estimates.mean()) - left) < 4 * float(estimates.std()) / 10


def test_images_of_a_batch_take_as_many_columns_as_the_most_demanding_one(linear: Networks) -> None:
    x = _image(3)
    network = _with_logits(linear(SHAPE, 60).double(), x, torch.cat([torch.zeros(3), torch.full((57,), -20.0)]))
    together = decompose(network, x, method="adaptive", rank=2, tolerance=1e-3)
    truth = decompose(network, x, method="exact", rank=2)
    torch.testing.assert_close(together.eigenvalues, truth.eigenvalues, rtol=1e-3, atol=0)


def test_everything_kept_means_everything_computed(linear: Networks) -> None:
    x = _image()
    network = _with_logits(linear(SHAPE, 30).double(), x, torch.cat([torch.zeros(3), torch.full((27,), -20.0)]))
    d = decompose(network, x, method="adaptive", energy=1.0)
    assert d.record["method"] == "exact"
    assert d.record["jacobian_products"] == 29


def test_recovered_columns_are_those_of_the_factor_and_one_of_rounding_is_zero() -> None:
    """Three columns are known; of the two others, one is zero."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(2, 12, 5, generator=generator, dtype=torch.float64)
    matrix[:, :, 4] = 0.0
    factor = matrix_factor(matrix)
    probes, rows = TraceProbes.draw(factor, 3, generator, known=3), FactorRows(factor.image)
    adaptive._recover(factor, rows, probes, 3)
    found = torch.stack([row.window(0, 12) * scale[:, None] for row, scale in zip(rows.rows, rows.factors, strict=True)], 2)
    torch.testing.assert_close(found[:, :, 0], matrix[:, :, 3])
    assert not found[:, :, 1].any()
