"""Answers restricted to one label or to a mask: F against dense matrices from probabilities by autodiff."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from monai.networks.nets import UNet
from torch import Tensor, nn

from core_cases import smooth_cnn
from monai_ifim.core import Decomposition, GaussianHead, HeadError, decompose
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.probabilities import CategoricalProbabilityHead
from monai_ifim.core.heads.restricted import LabelHead
from monai_ifim.core.locality import locality_radius

SHAPE = (2, 7, 5)


def _image(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _classifier(outputs: int, last: nn.Module | None = None) -> nn.Module:
    network = smooth_cnn(SHAPE, outputs, seed=3).double()
    return network if last is None else nn.Sequential(network, last).eval()


def _segmenter(outputs: int, channels: int = 1, spatial: int = 2) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = UNet(spatial, channels, outputs, (4, 8), (2,), act="TANH").double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network


def _jacobian(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    rows: Tensor = torch.autograd.functional.jacobian(lambda z: function(z).flatten(), x)  # type: ignore[no-untyped-call]
    return rows.flatten(1)


def _whole(d: Decomposition, item: int = 0) -> Tensor:
    """F from all eigenpairs of an image."""
    u = d.eigenvectors[item].flatten(1)
    return u.T @ (d.eigenvalues[item][:, None] * u)


def _assert_same(d: Decomposition, fisher: Tensor, item: int = 0) -> None:
    torch.testing.assert_close(_whole(d, item), fisher, rtol=1e-7, atol=1e-9 * float(fisher.diagonal().max()))
    torch.testing.assert_close(d.trace[item], fisher.trace(), rtol=1e-8, atol=0)


@pytest.mark.parametrize("answer", [0, 2, "3"])
@pytest.mark.parametrize(
    ("head", "last"),
    [
        ("categorical", None),
        ("bernoulli", None),
        ("probabilities", nn.Softmax(1)),
        ("bernoulli_probabilities", nn.Sigmoid()),
    ],
)
def test_one_label_of_a_classifier_is_a_bernoulli_answer(head: str, last: nn.Module | None, answer: int | str) -> None:
    network, x, number = _classifier(4, last), _image(2, *SHAPE), int(answer)
    exclusive = head in ("categorical", "probabilities")

    def probability(z: Tensor) -> Tensor:
        output = network(z)
        if last is not None:
            return output[:, number]
        return (output.softmax(1) if exclusive else output.sigmoid())[:, number]

    d = decompose(network, x, head=head, answer=answer, energy=1.0, verify="always", locality=True)
    assert d.record["jacobian_products"] == 1
    assert d.record["head"] == head
    assert d.record["answer"] == {"label": number, "name": None, "mask": None}
    assert d.record["verification"]["outcome"] == "agrees"
    for b in range(2):
        p = float(probability(x[b : b + 1]).detach())
        gradient = _jacobian(probability, x[b : b + 1])[0]
        _assert_same(d, torch.outer(gradient, gradient) / (p * (1 - p)), b)
        towards = float(gradient @ d.eigenvectors[b, 0].flatten())
        assert (towards > 0) == (p > 0.5)
    torch.testing.assert_close(locality_radius(network, d), d.locality_radius)
    whole = decompose(network, x, head=head, energy=1.0)
    torch.testing.assert_close(d.probabilities, whole.probabilities)
    assert bool((d.trace < whole.trace).all())


@pytest.mark.parametrize("head", [CategoricalHead(), CategoricalProbabilityHead()])
@pytest.mark.parametrize("logits", [[40.0, 0.5, -1.0], [0.0, 40.0, 3.0], [-80.0, 2.0, 1.0]])
def test_a_saturated_label_keeps_its_digits(head: CategoricalHead, logits: list[float]) -> None:
    """dp = p (1 - p) dt by mpmath, for a softmax of three logits and a linear change of these."""
    import mpmath

    mpmath.mp.dps = 60
    weights = [[0.3, -0.2], [0.1, 0.7], [-0.5, 0.4]]
    z = [mpmath.mpf(value) for value in logits]
    total = sum(mpmath.exp(value) for value in z)
    p = [mpmath.exp(value) / total for value in z]
    mean = [sum(p[k] * weights[k][i] for k in range(3)) for i in range(2)]
    rest = p[1] + p[2]
    gradient = [p[0] * (weights[0][i] - mean[i]) for i in range(2)]
    truth = [float(value / mpmath.sqrt(p[0] * rest)) for value in gradient]
    leaf = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    output = torch.tensor([logits], dtype=torch.float64) + leaf @ torch.tensor(weights, dtype=torch.float64).T
    if isinstance(head, CategoricalProbabilityHead):
        output = output.softmax(1)
    root = LabelHead(head, 0).square_root(output.detach())
    (row,) = torch.autograd.grad(output, leaf, root.cotangents(0, 1)[:, 0])
    found = (float(root.scales) * row[0]).tolist()
    if found[0] * truth[0] < 0:
        found = [-value for value in found]
    assert found == pytest.approx(truth, rel=1e-10)


def test_a_small_step_costs_half_the_eigenvalue() -> None:
    network, x, step = _classifier(4), _image(2, *SHAPE), 1e-4
    d = decompose(network, x, answer=1)
    moved = network(x + step * d.eigenvectors[:, 0]).detach()
    divergence = LabelHead(CategoricalHead(), 1).divergence(network(x).detach(), moved)
    torch.testing.assert_close(divergence, 0.5 * step**2 * d.eigenvalues[:, 0], rtol=1e-3, atol=0)


def _voxel_fisher(network: nn.Module, x: Tensor, where: Tensor, exclusive: bool) -> Tensor:
    """Sum over the answers in `where` (bool [C or 1, *spatial]) of J_v^T M_v J_v, by the probabilities themselves."""

    def shares(z: Tensor) -> Tensor:
        output = network(z)
        p = output.softmax(1) if exclusive else output.sigmoid()
        return p[0]

    p = shares(x).detach()
    weights = 1 / p if exclusive else 1 / (p * (1 - p))
    rows = _jacobian(shares, x)
    return rows.T @ ((weights * where.expand_as(p)).flatten()[:, None] * rows)


@pytest.mark.parametrize("exclusive", [True, False], ids=["classes", "labels"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize("answer", [None, 1])
def test_a_voxelwise_answer_is_that_of_the_voxels_asked_about(exclusive: bool, masked: bool, answer: int | None) -> None:
    network, x = _segmenter(3), _image(2, 1, 6, 4)
    mask = torch.rand(2, 6, 4, generator=torch.Generator().manual_seed(8)) > 0.3
    head = "voxelwise" if exclusive else "voxelwise_bernoulli"
    output = network(x).detach()
    counted = (
        (output.argmax(1, keepdim=True) == 1)
        if exclusive
        else torch.stack(
            [
                torch.zeros_like(output[:, 0], dtype=torch.bool),
                output[:, 1] > 0,
                torch.zeros_like(output[:, 0], dtype=torch.bool),
            ],
            1,
        )
    )
    where = counted if answer is not None else torch.ones_like(output[:, :1], dtype=torch.bool)
    where = where & mask[:, None] if masked else where
    d = decompose(
        network,
        x,
        head=head,
        answer=answer,
        answer_mask=mask.float() if masked else None,
        rank=24,
        tolerance=1e-6,
        verify="always",
    )
    for b in range(2):
        fisher = _voxel_fisher(network, x[b : b + 1], where[b], exclusive)
        torch.testing.assert_close(_whole(d, b), fisher, rtol=1e-5, atol=1e-6 * float(fisher.diagonal().max()))
    if answer is None and not masked:
        assert d.record["answer"] is None
        assert d.answer_voxels is None
        return
    assert d.answer_voxels is not None
    assert d.answer_voxels.tolist() == where.any(1).flatten(1).sum(1).tolist()
    assert d.record["answer"]["label"] == answer
    assert (d.record["answer"]["mask"] is not None) == masked
    assert d.record["verification"]["outcome"] == "agrees"


@pytest.mark.parametrize("exclusive", [True, False], ids=["classes", "labels"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
@pytest.mark.parametrize("answer", [None, 2])
def test_volumes_of_one_label_or_inside_of_a_mask(exclusive: bool, masked: bool, answer: int | None) -> None:
    network, x, voxel = _segmenter(4), _image(2, 1, 6, 10), torch.tensor([0.01, 0.03], dtype=torch.float64)
    mask = torch.rand(6, 10, generator=torch.Generator().manual_seed(8)) > 0.4

    def volumes(z: Tensor) -> Tensor:
        output = network(z)
        shares = output.softmax(1) if exclusive else output.sigmoid()
        return (shares * mask if masked else shares).flatten(2).sum(2)

    d = decompose(
        network,
        x,
        head="volumes" if exclusive else "volumes_bernoulli",
        answer=answer,
        answer_mask=mask if masked else None,
        volume_tolerance="3 %",
        voxel_volume=voxel,
        energy=1.0,
        verify="always",
        locality=True,
    )
    columns = 1 if answer is not None else (3 if exclusive else 4)
    assert d.record["jacobian_products"] == columns
    asked = slice(None) if answer is None else slice(answer, answer + 1)
    for b in range(2):
        found = voxel[b] * volumes(x[b : b + 1])[0].detach()
        torch.testing.assert_close(d.probabilities[b], found)
        gradients = (voxel[b] * _jacobian(volumes, x[b : b + 1]))[asked]
        sigma = torch.maximum(0.03 * found, voxel[b])[asked]
        rows = gradients / sigma[:, None]
        _assert_same(d, rows.T @ rows, b)
        assert d.answer_tolerances is not None
        assert d.answer_slopes is not None
        assert d.answer_changes is not None
        torch.testing.assert_close(d.answer_tolerances[b], sigma)
        torch.testing.assert_close(d.answer_slopes[b], gradients.norm(dim=1), rtol=1e-7, atol=0)
        torch.testing.assert_close(d.answer_changes[b], d.eigenvectors[b].flatten(1) @ gradients.T, rtol=1e-6, atol=1e-12)
    if not masked:
        torch.testing.assert_close(locality_radius(network, d), d.locality_radius)
    else:
        with pytest.raises(HeadError, match="locality=True"):
            locality_radius(network, d)


def test_a_mask_on_the_grid_of_the_image_is_taken_to_a_coarser_output() -> None:
    network, x = nn.Sequential(nn.AvgPool2d(2), _segmenter(3)).eval(), _image(1, 1, 12, 8)
    coarse = torch.zeros(6, 4)
    coarse[1:4, 2:] = 1
    fine = coarse.repeat_interleave(2, 0).repeat_interleave(2, 1)
    by_grid = [decompose(network, x, head="voxelwise", answer_mask=mask, rank=2, tolerance=1e-6) for mask in (coarse, fine)]
    torch.testing.assert_close(by_grid[0].eigenvalues, by_grid[1].eigenvalues)
    with pytest.raises(HeadError, match=r"sizes \(5, 4\), the network's output \(6, 4\) and its input \(12, 8\)"):
        decompose(network, x, head="voxelwise", answer_mask=torch.ones(5, 4))


def test_a_coarser_output_has_larger_voxels() -> None:
    network, x = nn.Sequential(nn.AvgPool2d(2), _segmenter(3)).eval(), _image(1, 1, 12, 8)
    d = decompose(network, x, head="volumes", voxel_volume=0.5)
    assert d.record["volumes"] == {"unit": "ml", "tolerance": "5 %", "grid": [6, 4], "voxel_volume": [2.0]}
    torch.testing.assert_close(d.probabilities.sum(1), torch.tensor([48.0], dtype=torch.float64))


@pytest.mark.parametrize("answer", [7, "tumour", "-1"])
def test_an_unknown_label_is_refused_with_those_that_exist(answer: int | str) -> None:
    with pytest.raises(HeadError, match="give one of numbers from 0 to 3"):
        decompose(_classifier(4), _image(1, *SHAPE), answer=answer)


def test_a_label_that_nowhere_wins_is_refused_with_those_that_do() -> None:
    network, x = _segmenter(3), _image(2, 1, 6, 4)
    shifted = nn.Sequential(network, _Added(torch.tensor([0.0, -50.0, 0.0]))).eval()
    with pytest.raises(HeadError, match=r"label 1 is predicted at no voxel of image\(s\) \[0, 1\].*\(label 0, label 2\)"):
        decompose(shifted, x, head="voxelwise", answer=1)
    assert decompose(shifted, x, head="volumes", answer=1).answer_slopes is not None  # the cure in the message
    empty = torch.zeros(2, 6, 4)
    empty[0, 0, 0] = 1
    with pytest.raises(HeadError, match=r"0 everywhere on the network's grid of image\(s\) \[1\]"):
        decompose(network, x, head="voxelwise", answer_mask=empty)


class _Added(nn.Module):
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value.double()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.value[None, :, None, None]


def test_what_has_no_part_is_refused() -> None:
    x = _image(1, *SHAPE)
    with pytest.raises(HeadError, match="leave answer= out"):
        decompose(_classifier(4), x, head=GaussianHead(), answer=1)
    with pytest.raises(HeadError, match="which no mask divides"):
        decompose(_classifier(4), x, answer_mask=torch.ones(7, 5))
    with pytest.raises(HeadError, match="gives none: leave it out"):
        decompose(_classifier(4), x, volume_tolerance="3 %")
    with pytest.raises(HeadError, match="0 everywhere"):
        decompose(_segmenter(3), _image(1, 1, 6, 4), head="voxelwise", answer_mask=torch.zeros(6, 4))
    with pytest.raises(HeadError, match=r"one mask for each image, \[B, \*spatial\]"):
        decompose(_segmenter(3), _image(1, 1, 6, 4), head="voxelwise", answer_mask=torch.ones(2, 6, 4))
