"""How many components are kept: by energy, by rank, by the numerical rank of the network, and across ties."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import SpectralTieWarning, decompose, locality_radius
from monai_ifim.core.settings import selection

Networks = Callable[..., nn.Sequential]


def _gaussian_network(eigenvalues: list[float], dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A linear regression on [1, 5, 3] images whose F under unit noise has just these eigenvalues."""
    layer = nn.Linear(15, len(eigenvalues), bias=False)
    basis, _ = torch.linalg.qr(torch.randn(15, 15, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    layer.weight.data = torch.tensor(eigenvalues, dtype=torch.float64).sqrt()[:, None] * basis[: len(eigenvalues)]
    return nn.Sequential(nn.Flatten(), layer).eval().to(dtype)


@pytest.fixture
def small() -> Tensor:
    return torch.randn(1, 1, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize(
    ("energy", "kept"),
    [(0.01, 1), (0.3999, 1), (0.4001, 2), (0.6999, 2), (0.7001, 3), (0.8999, 3), (0.9001, 4), (1.0, 4), (1, 4)],
)
def test_energy_keeps_the_fewest_components_that_hold_it(small: Tensor, energy: float, kept: int) -> None:
    d = decompose(_gaussian_network([4.0, 3.0, 2.0, 1.0]), small, head="gaussian", energy=energy)
    assert d.rank.tolist() == [kept]
    torch.testing.assert_close(d.eigenvalues[0], torch.tensor([4.0, 3.0, 2.0, 1.0][:kept]).double())


@pytest.mark.parametrize(("rank", "kept"), [(1, 1), (3, 3), (4, 4), (50, 4)])
def test_rank_keeps_that_many_at_most_and_overrules_energy(small: Tensor, rank: int, kept: int) -> None:
    d = decompose(_gaussian_network([4.0, 3.0, 2.0, 1.0]), small, head="gaussian", rank=rank, energy=0.01)
    assert d.rank.tolist() == [kept]
    assert selection(d.record["settings"]) == {"rank": rank}
    torch.testing.assert_close(d.energy[0].item(), sum([0.4, 0.3, 0.2, 0.1][:kept]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gap", [0.0, 25.0, 75.0])
def test_bottleneck_of_width_two_gives_rank_two_whatever_the_classes(
    cnn: Networks, image: Tensor, dtype: torch.dtype, gap: float
) -> None:
    network = nn.Sequential(cnn((1, 7, 5), 2), nn.Tanh(), nn.Linear(2, 6)).eval().to(dtype)
    network[-1].bias.data[1] += gap
    assert decompose(network, image.to(dtype), energy=1.0).rank.tolist() == [2, 2, 2]


def test_two_equal_outputs_give_one_component(cnn: Networks, image: Tensor) -> None:
    network = nn.Sequential(cnn((1, 7, 5), 1), nn.Linear(1, 2)).eval().double()
    d = decompose(network, image, head="gaussian", energy=1.0)
    assert d.rank.tolist() == [1, 1, 1]
    torch.testing.assert_close(d.trace, d.eigenvalues[:, 0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rank", "tied"), [(1, False), (2, True), (3, False), (4, False)])
def test_only_a_cut_through_a_tie_is_announced(small: Tensor, dtype: torch.dtype, rank: int, tied: bool) -> None:
    network = _gaussian_network([4.0, 2.0, 2.0, 1.0], dtype)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decompose(network, small.to(dtype), head="gaussian", rank=rank)
    assert [w.category for w in caught] == [SpectralTieWarning] * tied
    assert all("keep one component more or fewer" in str(w.message) and w.filename == __file__ for w in caught)


def test_tie_warning_names_the_images_it_concerns(small: Tensor) -> None:
    def network(x: Tensor) -> Tensor:
        """Gradients e_0 and e_1 at x_1 = 0, e_0 and 3 e_1 elsewhere."""
        flat = x.flatten(1)
        return torch.stack([flat[:, 0], flat[:, 1] + flat[:, 1] ** 3 * 2 / 3], dim=1)

    x = small.repeat(2, 1, 1, 1)
    x[0].view(-1)[1], x[1].view(-1)[1] = 1.0, 0.0
    with pytest.warns(SpectralTieWarning, match=r"image\(s\) \[1\] of the batch"):
        decompose(network, x, head="gaussian", rank=1)


def test_tied_subspace_kept_whole_has_a_unique_projector(small: Tensor) -> None:
    network = _gaussian_network([4.0, 2.0, 2.0, 1.0])
    rows = decompose(network, small, head="gaussian", rank=3).eigenvectors[0].flatten(1)
    basis = network[1].weight.detach()[:3]
    basis = basis / basis.norm(dim=1, keepdim=True)
    torch.testing.assert_close(rows.T @ rows, basis.T @ basis, rtol=0, atol=1e-12)


@pytest.mark.parametrize("head", ["categorical", "bernoulli", "gaussian"])
def test_zero_last_layer_is_flat(cnn: Networks, image: Tensor, head: str) -> None:
    network = cnn((1, 7, 5), 4).double()
    network[-1].weight.data.zero_()
    _assert_flat(network, image, head)


def test_network_that_ignores_its_image_is_flat(image: Tensor) -> None:
    _assert_flat(lambda x: torch.arange(4.0).double().expand(x.shape[0], 4), image, "categorical")


def test_network_that_takes_only_the_shape_of_its_image_is_flat(image: Tensor) -> None:
    _assert_flat(lambda x: (x * 0).flatten(1)[:, :4] + torch.arange(4.0), image, "categorical")


def _assert_flat(network: Callable[..., Tensor], image: Tensor, head: str) -> None:
    d = decompose(network, image, head=head)
    assert d.rank.tolist() == [0, 0, 0]
    assert d.trace.tolist() == [0.0, 0.0, 0.0]
    assert d.energy.tolist() == [1.0, 1.0, 1.0]
    assert d.eigenvalues.shape == (3, 0)
    assert d.eigenvectors.shape == (3, 0, 1, 7, 5)
    assert locality_radius(network, d).shape == (3, 0)
    assert not d.high.any()
    assert not d.sensitivity.any()
    torch.testing.assert_close(d.low, image, rtol=0, atol=0)
    assert [part.tolist() for part in d.project(image + 1)] == [torch.zeros_like(image).tolist(), (image + 1).tolist()]


def test_flat_image_beside_a_steep_one_is_padded(image: Tensor) -> None:
    def network(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3].relu()

    x = image.abs()
    x[1] *= -1
    d = decompose(network, x, energy=1.0)
    assert d.rank.tolist() == [2, 0, 2]
    assert not d.eigenvalues[1].any()
    assert not d.eigenvectors[1].any()
    assert not d.high[1].any()
    assert locality_radius(network, d)[1].tolist() == [0.0, 0.0]
    assert bool((locality_radius(network, d)[::2] > 0).all())
