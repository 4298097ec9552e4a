"""The locality radius against a dense scan of the divergence in float64, and what it costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import Decomposition, decompose, locality, locality_radius

Networks = Callable[..., nn.Sequential]


def _divergence(network: nn.Module, x: Tensor, moved: Tensor, head: str) -> Tensor:
    """KL from the prediction at x [1, ...] to each of `moved` [n, ...], by its definition."""
    before, after = network(x), network(moved)
    if head == "categorical":
        return nn.functional.kl_div(after.log_softmax(1), before.log_softmax(1), log_target=True, reduction="none").sum(1)
    p = before.sigmoid()
    log_ratio = nn.functional.logsigmoid(before) - nn.functional.logsigmoid(after)
    log_other = nn.functional.logsigmoid(-before) - nn.functional.logsigmoid(-after)
    return (p * log_ratio + (1 - p) * log_other).sum(1)


def _scanned_radius(network: nn.Module, x: Tensor, u: Tensor, eigenvalue: Tensor, head: str, around: float) -> float:
    """First of 4000 steps up to 3 * around at which the divergence is off by more than 10 %."""
    steps = torch.linspace(0.02 * around, 3 * around, 4000, dtype=torch.float64)
    moved = x + steps.reshape(-1, *[1] * (x.ndim - 1)) * u
    deviation = (_divergence(network, x, moved, head) / (steps.square() * eigenvalue / 2) - 1).abs()
    outside = (deviation > 0.1).nonzero()[:, 0]
    return float(steps[outside[0]]) if outside.numel() else float("inf")


def _assert_scan_agrees(network: nn.Module, d: Decomposition, head: str) -> None:
    radii = locality_radius(network, d)
    for b in range(d.image.shape[0]):
        for i in range(int(d.rank[b])):
            found, x = float(radii[b, i]), d.image[b : b + 1]
            truth = _scanned_radius(network, x, d.eigenvectors[b, i], d.eigenvalues[b, i], head, found)
            assert found == pytest.approx(truth, rel=0.04), (b, i)


@pytest.mark.parametrize("seed", range(6))
def test_radius_of_a_linear_softmax_is_where_a_dense_scan_leaves_the_band(linear: Networks, image: Tensor, seed: int) -> None:
    network = linear((1, 7, 5), 4, seed=seed).double()
    _assert_scan_agrees(network, decompose(network, image, energy=1.0), "categorical")


@pytest.mark.parametrize("seed", range(3))
def test_radius_of_independent_labels_is_where_a_dense_scan_leaves_the_band(linear: Networks, image: Tensor, seed: int) -> None:
    network = linear((1, 7, 5), 3, seed=seed).double()
    _assert_scan_agrees(network, decompose(network, image, head="bernoulli", energy=1.0), "bernoulli")


@pytest.mark.parametrize("seed", range(3))
def test_radius_of_a_smooth_cnn_is_where_a_dense_scan_leaves_the_band(cnn: Networks, image: Tensor, seed: int) -> None:
    network = cnn((1, 7, 5), 4, seed=seed, gain=12.0).double()
    _assert_scan_agrees(network, decompose(network, image, energy=1.0), "categorical")


@pytest.mark.parametrize("seed", [3, 17, 26, 30, 55])
def test_radius_ends_at_the_first_exit_even_where_the_band_is_entered_again_further_out(cnn: Networks, seed: int) -> None:
    network = cnn((1, 7, 5), 4, seed=seed, gain=12.0).double()
    x = 2 * torch.randn(2, 1, 7, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    _assert_scan_agrees(network, decompose(network, x, energy=1.0), "categorical")


def test_float32_radius_agrees_with_float64(linear: Networks, image: Tensor) -> None:
    network = linear((1, 7, 5), 4)
    found = decompose(network, image.float(), energy=1.0, locality=True).locality_radius
    truth = decompose(network.double(), image, energy=1.0, locality=True).locality_radius
    torch.testing.assert_close(found, truth, rtol=0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_linear_regression_is_quadratic_however_far(linear: Networks, image: Tensor, dtype: torch.dtype) -> None:
    network = linear((1, 7, 5), 3).to(dtype)
    radius = decompose(network, image.to(dtype), head="gaussian", energy=1.0, locality=True).locality_radius
    assert radius.shape == (3, 3)
    assert bool(radius.isinf().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [25.0, 75.0, 150.0])
def test_saturated_prediction_has_a_radius_of_the_logits_own_scale(
    linear: Networks, image: Tensor, dtype: torch.dtype, gap: float
) -> None:
    """KL ~ q (e^d - 1 - d) in the leading direction, which leaves the 10 % band at a logit change of about 0.3."""
    network = linear((1, 7, 5), 4).to(dtype)
    network[-1].bias.data[1] += gap
    d = decompose(network, image.to(dtype), energy=1.0)
    leading = locality_radius(network, d)[:, 0]
    moved = network(d.image + leading.to(dtype)[:, None, None, None] * d.eigenvectors[:, 0])
    change = moved - d.logits
    heaviest = d.logits.clone().scatter(1, d.logits.argmax(1, keepdim=True), -torch.inf).argmax(1, keepdim=True)
    relative = (change.gather(1, heaviest) - change[:, 1:2]).abs()
    assert bool(leading.isfinite().all())
    assert bool((leading > 0).all())
    assert bool(((relative > 0.25) & (relative < 0.35)).all())


def test_radius_takes_forward_passes_only(cnn: Networks, image: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    network = cnn((1, 7, 5), 4).double()
    d = decompose(network, image)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a backward pass was run")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    monkeypatch.setattr(torch.autograd, "backward", refuse)
    assert bool((locality_radius(network, d)[:, 0] > 0).all())


def test_radius_stops_where_the_output_stops_being_finite() -> None:
    def network(x: Tensor) -> Tensor:
        return (3 - x[:, 0, 0, :1]).sqrt() * 0 + x.flatten(1)[:, :1]

    x = torch.zeros(1, 1, 2, 3).double()
    radius = decompose(network, x, head="gaussian", locality=True).locality_radius
    assert radius.item() == pytest.approx(3.0, rel=0.04)


def test_network_that_bends_at_once_has_radius_zero() -> None:
    """x + |x| at x = 0: autograd says slope 1 there, a step to the right finds slope 2."""
    x = torch.zeros(1, 1, 2, 3).double()
    d = decompose(lambda x: x.flatten(1)[:, :1] + x.flatten(1)[:, :1].abs(), x, head="gaussian", locality=True)
    torch.testing.assert_close(d.eigenvalues, torch.ones(1, 1).double())
    assert d.locality_radius.tolist() == [[0.0]]


def test_radius_scales_with_the_unit_of_the_image(linear: Networks, image: Tensor) -> None:
    network = linear((1, 7, 5), 4).double()
    truth = decompose(network, image, energy=1.0, locality=True)
    scaled = decompose(lambda x: network(x / 100), 100 * image, energy=1.0, locality=True)
    torch.testing.assert_close(scaled.eigenvalues, truth.eigenvalues * 1e-4)
    torch.testing.assert_close(scaled.locality_radius, 100 * truth.locality_radius, rtol=1e-6, atol=0)


class _Bent(nn.Module):
    """Logits 0 and t + kink |t| - t^2 bend, t = <x - x0, w>: the kink's slope is not the gradient's, and the bend hides it."""

    def __init__(self, x0: Tensor, w: Tensor, kink: float, bend: float) -> None:
        super().__init__()
        self.x0, self.w, self.kink, self.bend = x0, w, kink, bend

    def forward(self, x: Tensor) -> Tensor:
        t = ((x - self.x0) * self.w).flatten(1).sum(1)
        return torch.stack([torch.zeros_like(t), t + self.kink * t.abs() - self.bend * t.square()], 1)


@pytest.mark.parametrize("kink", [0.0, 0.08])
def test_a_kink_at_the_image_leaves_no_radius_though_longer_steps_come_back_into_the_band(image: Tensor, kink: float) -> None:
    x = image[:1]
    network = _Bent(x, torch.ones_like(x) / x.numel() ** 0.5, kink, 0.9).eval()
    d = decompose(network, x, rank=1)
    found, u, eigenvalue = float(locality_radius(network, d)[0, 0]), d.eigenvectors[0, 0], d.eigenvalues[0, 0]
    steps = torch.tensor([1e-3, 0.05], dtype=torch.float64)
    moved = x + steps.reshape(-1, 1, 1, 1) * u
    near, far = ((_divergence(network, x, moved, "categorical") / (steps.square() * eigenvalue / 2) - 1).abs() > 0.1).tolist()
    assert not far
    assert near == (kink > 0)
    assert (found > 0) == (kink == 0)


def _segmenter(seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = (nn.Conv2d(1, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1))
    layers[2].weight.data *= 4
    return nn.Sequential(*layers).double().eval()


@pytest.mark.parametrize("head", ["volumes", "voxelwise"])
@pytest.mark.parametrize("seed", range(3))
def test_a_large_map_gets_a_lower_bound_of_its_radius_in_few_passes_a_direction(
    monkeypatch: pytest.MonkeyPatch, head: str, seed: int
) -> None:
    network, passes = _segmenter(seed), list[int]()
    x = torch.randn(1, 1, 9, 13, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    fine = decompose(network, x, head=head, rank=2, tolerance=1e-6, locality=True, verify="never")
    monkeypatch.setattr(locality, "LARGE_MAP", x.numel())
    network.register_forward_hook(lambda module, given, output: passes.append(len(output)))
    coarse = decompose(network, x, head=head, rank=2, tolerance=1e-6, verify="never")
    passes.clear()
    radius = locality_radius(network, coarse)
    assert sum(passes) <= 2 + 2 * 4  # one at the image, and one to see that the network is the one of the decomposition
    assert bool((radius <= 1.05 * fine.locality_radius).all())
    assert bool((radius > fine.locality_radius / 6).all())
    again = decompose(network, x, head=head, rank=2, tolerance=1e-6, verify="never", locality=True)
    assert (fine.record["locality_is_lower_bound"], again.record["locality_is_lower_bound"]) == (False, True)
    torch.testing.assert_close(again.locality_radius, radius, rtol=1e-6, atol=0)
