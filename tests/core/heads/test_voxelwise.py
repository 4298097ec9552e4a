"""Segmentation networks: F of independent answers at every voxel, matrix-free, against the dense sum over voxels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from monai_ifim.core import Decomposition, HeadError, IFIMError, NetworkError, decompose, locality_radius
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
    torch.testing.assert_close(d.trace[0], fisher.trace(), rtol=0.3, atol=0)  # an estimate, from two probes


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
