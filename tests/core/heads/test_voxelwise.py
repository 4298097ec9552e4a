"""Segmentation networks: F of independent answers at every voxel, matrix-free, against the dense sum over voxels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from monai_ifim.core import ConvergenceWarning, Decomposition, HeadError, IFIMError, NetworkError, decompose, locality_radius
from monai_ifim.core.decomposition import joined
from monai_ifim.core.heads.voxelwise import mean_probability


def _unet(spatial: int, outputs: int, channels: int = 1) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return UNet(spatial, channels, outputs, (4, 8), (2,), act="TANH").double().eval()


def _dense(network: nn.Module, x: Tensor, exclusive: bool) -> Tensor:
    """Sum over voxels of J_v^T M_v J_v, M_v = diag p - p p^T or diag p (1 - p), [D, D] float64."""
    output = network(x)[0].detach()
    jacobian = torch.autograd.functional.jacobian(lambda z: network(z)[0], x)  # type: ignore[no-untyped-call]
    jacobian = jacobian.reshape(output.shape[0], -1, x.numel())
    total = torch.zeros(x.numel(), x.numel(), dtype=torch.float64)
    for v in range(jacobian.shape[1]):
        z = output.flatten(1)[:, v]
        p = z.softmax(0) if exclusive else z.sigmoid()
        middle = torch.diag(p) - torch.outer(p, p) if exclusive else torch.diag(p * (1 - p))
        total += jacobian[:, v].T @ middle @ jacobian[:, v]
    return total


def _assert_leading_pairs(d: Decomposition, fisher: Tensor, count: int) -> None:
    values, vectors = torch.linalg.eigh(fisher)
    assert d.rank.tolist() == [count]
    torch.testing.assert_close(d.eigenvalues[0], values.flip(0)[:count], rtol=1e-4, atol=0)
    found, truth = d.eigenvectors[0].flatten(1), vectors.flip(1)[:, :count].T
    torch.testing.assert_close(found.T @ found, truth.T @ truth, rtol=0, atol=1e-3)
    assert bool((d.trace - fisher.trace()).abs() < 4 * d.trace_error)


@pytest.mark.parametrize(
    ("spatial", "outputs", "shape"), [(2, 3, (1, 12, 8)), (2, 2, (2, 8, 10)), (3, 3, (1, 4, 6, 8))], ids=["2d", "2d-2", "3d"]
)
def test_exclusive_classes_at_every_voxel(spatial: int, outputs: int, shape: tuple[int, ...]) -> None:
    network = _unet(spatial, outputs, shape[0])
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    d = decompose(network, x, head="voxelwise", rank=4, tolerance=1e-5)
    _assert_leading_pairs(d, _dense(network, x, exclusive=True), 4)
    assert d.record["method"] == "matrix_free"
    assert d.probabilities.shape == (1, outputs, *shape[1:])
    torch.testing.assert_close(d.probabilities, network(x).detach().softmax(1))


@pytest.mark.parametrize("outputs", [1, 3])
def test_independent_labels_at_every_voxel(outputs: int) -> None:
    network = _unet(2, outputs)
    x = torch.randn(1, 1, 12, 10, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    d = decompose(network, x, head="voxelwise_bernoulli", rank=3, tolerance=1e-5)
    _assert_leading_pairs(d, _dense(network, x, exclusive=False), 3)


@pytest.mark.parametrize(("head", "outputs"), [("voxelwise", 3), ("voxelwise_bernoulli", 2)])
def test_small_steps_along_an_eigenvector_cost_half_the_eigenvalue(head: str, outputs: int) -> None:
    network = _unet(2, outputs)
    x = torch.randn(2, 1, 12, 10, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    d = decompose(network, x, head=head, rank=2, tolerance=1e-5)
    step = 1e-3
    moved = network(x + step * d.eigenvectors[:, 0]).detach()
    before = network(x).detach()
    if head == "voxelwise":
        p = before.softmax(1)
        divergence = (p * (before.log_softmax(1) - moved.log_softmax(1))).flatten(1).sum(1)
    else:
        p, q = before.sigmoid(), moved.sigmoid()
        divergence = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).flatten(1).sum(1)
    torch.testing.assert_close(divergence, 0.5 * step**2 * d.eigenvalues[:, 0], rtol=1e-2, atol=0)
    radius = locality_radius(network, d)
    assert bool((radius > step).all())
    # Along +u the predicted answers gain.
    labels = (before > 0).double() if outputs == 2 else before.argmax(1, keepdim=True)

    def score(z: Tensor) -> Tensor:
        if outputs == 2:
            return -nn.functional.binary_cross_entropy_with_logits(z, labels, reduction="none").flatten(1).sum(1)
        return z.log_softmax(1).gather(1, labels).flatten(1).sum(1)

    assert bool((score(moved) > score(before)).all())


def test_batch_is_what_each_image_is_alone() -> None:
    network = _unet(2, 3)
    x = torch.randn(2, 1, 8, 10, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    together = decompose(network, x, head="voxelwise", rank=2, tolerance=1e-6)
    for b in range(2):
        alone = decompose(network, x[b : b + 1], head="voxelwise", rank=2, tolerance=1e-6)
        torch.testing.assert_close(together.eigenvalues[b], alone.eigenvalues[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(together.high[b], alone.high[0], rtol=0, atol=1e-4)


def test_mean_probability_is_the_share_of_the_voxels() -> None:
    values = torch.rand(2, 3, 4, 5)
    torch.testing.assert_close(mean_probability(values), values.mean((2, 3)))
    assert mean_probability(values[:, :, 0, 0]).shape == (2, 3)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"head": "auto"}, NetworkError, "head='voxelwise'"),
        ({"head": "voxelwise", "method": "exact"}, IFIMError, "matrix_free"),
        ({"head": "voxelwise", "method": "adaptive"}, IFIMError, "matrix_free"),
    ],
)
def test_what_cannot_be_is_refused_with_the_cure(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decompose(_unet(2, 3), torch.randn(1, 1, 8, 8).double(), **settings)


def test_classifier_with_a_voxelwise_head_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).double().eval()
    with pytest.raises(HeadError, match="head='categorical'"):
        decompose(network, torch.randn(1, 1, 8, 8).double(), head="voxelwise")


def test_one_channel_or_a_softmax_is_no_exclusive_segmentation() -> None:
    x = torch.randn(1, 1, 8, 8).double()
    with pytest.raises(HeadError, match="voxelwise_bernoulli"):
        decompose(_unet(2, 1), x, head="voxelwise")
    with pytest.raises(HeadError, match="already a softmax"):
        decompose(nn.Sequential(_unet(2, 3), nn.Softmax(1)).eval(), x, head="voxelwise")


def _sizes(channels: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A network of three classes on images of two odd sizes, one image of it, and its F."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        layers = [nn.Conv2d(channels, 5, 3, padding=1), nn.Tanh(), nn.Conv2d(5, 3, 3, padding=2, dilation=2)]
        network = nn.Sequential(*layers).double().eval()
    x = torch.randn(1, channels, 11, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return network, x, _dense(network, x, exclusive=True)


def test_a_run_without_options_ends_with_three_components_and_all_of_diag_f() -> None:
    network, x, fisher = _sizes(2)
    d = decompose(network, x, head="voxelwise")
    assert (d.rank.tolist(), d.status, d.record["stopped"]) == ([3], ("converged",), None)
    assert bool((d.residuals <= 0.05 * d.eigenvalues).all())
    torch.testing.assert_close(d.eigenvalues[0], torch.linalg.eigvalsh(fisher).flip(0)[:3], rtol=0.05, atol=0)
    torch.testing.assert_close(d.sensitivity.sum(), d.trace[0], rtol=1e-9, atol=0)
    held = float(d.eigenvalues.sum() / fisher.trace())
    assert held < 0.7  # the components alone would not do
    assert d.record["settings"] | {"rank": 3, "tolerance": 0.05, "probes": 8} == d.record["settings"]


def test_diag_f_and_trace_are_unbiased_and_their_errors_hold() -> None:
    network, x, fisher = _sizes(2)
    runs = [decompose(network, x, head="voxelwise", rank=2, tolerance=0.1, seed=seed, verify="never") for seed in range(30)]
    truth, trace = fisher.diagonal(), fisher.trace()
    found, errors = (torch.stack([getattr(d, name).flatten() for d in runs]) for name in ("sensitivity", "sensitivity_error"))
    deviation = (found.mean(0) - truth) / (found.std(0) / len(runs) ** 0.5)
    assert float(deviation.square().mean()) < 1.6
    assert abs(float(found.mean(0).sum() / trace) - 1) < 0.02
    assert 0.92 < float(((found - truth).abs() <= 2 * errors).double().mean()) < 0.99
    traces, scatter = (torch.cat([getattr(d, name) for d in runs]) for name in ("trace", "trace_error"))
    assert 0.8 < float(((traces - trace).abs() <= 2 * scatter).double().mean()) <= 1.0
    torch.testing.assert_close(scatter.square().mean().sqrt(), traces.std(), rtol=0.35, atol=0)
    assert all(bool(d.error_bound <= 1) for d in runs)


def test_more_probes_bring_diag_f_nearer() -> None:
    network, x, fisher = _sizes(1)
    few, many = (decompose(network, x, head="voxelwise", rank=1, probes=probes) for probes in (2, 128))
    far, near = (float((d.sensitivity.flatten() - fisher.diagonal()).norm()) for d in (few, many))
    assert near < 0.4 * far
    stated = float(many.sensitivity_error.norm() / few.sensitivity_error.norm())
    assert 0.08 < stated < 0.35
    assert many.record["jacobian_products"] == few.record["jacobian_products"] + 126


def test_pairs_that_span_everything_leave_nothing_to_estimate() -> None:
    network, x, _ = _sizes(1)
    small, values = x[..., :3, :3], _dense(network, x[..., :3, :3], exclusive=True)
    d = decompose(network, small, head="voxelwise", energy=1.0, tolerance=1e-6)
    torch.testing.assert_close(d.sensitivity.flatten(), values.diagonal())
    # whether the last direction is found, or is zero to rounding, depends on the processor
    assert d.sensitivity_error is None or float(d.sensitivity_error.max()) < 1e-12 * float(values.trace())
    assert max(float(d.trace_error), float(d.error_bound)) < 1e-12
    assert d.status == ("converged",)
    torch.testing.assert_close(d.trace[0], values.trace())


def test_diag_f_of_a_metric_and_of_float16_passes() -> None:
    network, x, fisher = _sizes(2)
    sigma = torch.rand(x.shape[1:], generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.1
    d = decompose(network, x, head="voxelwise", rank=1, metric=sigma, probes=64)
    expected = fisher.diagonal() * sigma.flatten().square()
    assert float(((d.sensitivity.flatten() - expected).abs() <= 2 * d.sensitivity_error.flatten()).double().mean()) > 0.9
    half = decompose(network.float(), x.float(), head="voxelwise", rank=1, probes=64, precision="float16", tolerance=0.2)
    close = (half.sensitivity.flatten() - fisher.diagonal()).abs() <= 2.2 * half.sensitivity_error.flatten()
    assert float(close.double().mean()) > 0.9


def test_memory_budget_leaves_the_estimates_as_they_are() -> None:
    network, x, _ = _sizes(2)
    x = torch.cat([x, -x])
    whole, bounded = (decompose(network, x, head="voxelwise", rank=2, memory_budget=budget) for budget in (None, "3MiB"))
    torch.testing.assert_close(bounded.trace, whole.trace, rtol=0.5, atol=0)  # other draws for the second image
    torch.testing.assert_close(bounded.sensitivity[0], whole.sensitivity[0], rtol=0.9, atol=float(whole.sensitivity.max()))
    assert bounded.sensitivity_error is not None
    assert bounded.sensitivity_error.shape == x.shape
    assert bounded.status == ("converged", "converged")


def test_advice_to_a_segmentation_names_nothing_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ifim.core.solvers.lanczos.STEPS_A_PAIR", 2)
    monkeypatch.setattr("monai_ifim.core.solvers.lanczos.FURTHER_STEPS", 0)
    network, x, _ = _sizes(2)
    with pytest.warns(ConvergenceWarning, match="Give a smaller rank=, or a larger tolerance=.$"):
        assert decompose(network, x, head="voxelwise", rank=3, tolerance=1e-9).status == ("not converged",)
    with pytest.warns(ConvergenceWarning, match="eigenvalues .residuals, converged.. Give a larger tolerance=.$"):
        decompose(network, x, head="voxelwise", rank=1, tolerance=1e-9)
    assert decompose(network, x, head="voxelwise", rank=1, tolerance=0.99).status == ("converged",)


def test_a_part_of_a_batch_that_estimates_nothing_has_errors_of_zero() -> None:
    network, x, _ = _sizes(1)
    d = decompose(network, x, head="voxelwise", rank=1)
    whole = joined([d, replace(d, sensitivity_error=None)], torch.cat([x, x]))
    torch.testing.assert_close(whole.sensitivity_error, torch.cat([d.sensitivity_error, torch.zeros_like(d.sensitivity)]))
    assert joined([replace(d, sensitivity_error=None)] * 2, torch.cat([x, x])).sensitivity_error is None
