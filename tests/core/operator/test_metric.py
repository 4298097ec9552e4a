"""Input metrics: F' = M F M against the dense product, and what its eigenimages do to the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from monai_ifim.core import GaussianLowPass, IFIMError, Metric, NoiseLevel, decompose, locality_radius
from monai_ifim.core.dense import dense_fisher

Networks = Callable[..., nn.Sequential]
METHODS = pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
SHAPES = {"2d": (2, 9, 7), "3d": (1, 5, 6, 4)}


def _image(shape: tuple[int, ...], batch: int = 2) -> Tensor:
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(12), dtype=torch.float64)


def _metrics(shape: tuple[int, ...], batch: int = 2) -> dict[str, Metric]:
    generator = torch.Generator().manual_seed(13)
    noise = 0.1 + torch.rand(batch, *shape, generator=generator, dtype=torch.float64)
    widths = [0.7, 1.6, 0.0][: len(shape) - 1]
    return {
        "scalar noise": NoiseLevel(0.3),
        "noise map": NoiseLevel(noise[0]),
        "noise maps of a batch": NoiseLevel(noise),
        "low-pass": GaussianLowPass(1.3),
        "low-pass by axis": GaussianLowPass(widths),
    }


def _dense_metric(metric: Metric, shape: tuple[int, ...], b: int, batch: int) -> Tensor:
    """M of image b as a matrix [D, D], column by column from the identity."""
    size = int(np.prod(shape))
    bound = metric.bound(torch.zeros(batch, *shape, dtype=torch.float64)).part(slice(b, b + 1))
    columns = [bound.apply(e.reshape(1, *shape)).flatten() for e in torch.eye(size, dtype=torch.float64)]
    return torch.stack(columns, dim=1)


@METHODS
@pytest.mark.parametrize("dimension", SHAPES)
@pytest.mark.parametrize("name", ["scalar noise", "noise map", "noise maps of a batch", "low-pass", "low-pass by axis"])
def test_pairs_are_those_of_the_dense_product(cnn: Networks, method: Any, dimension: str, name: str) -> None:
    shape = SHAPES[dimension]
    network, x, metric = cnn(shape, 5).double(), _image(shape), _metrics(shape)[name]
    d = decompose(network, x, method=method, metric=metric, energy=1.0)
    for b in range(2):
        m = _dense_metric(metric, shape, b, 2)
        fisher = m @ dense_fisher(network, x[b : b + 1]) @ m
        values, vectors = torch.linalg.eigh(fisher)
        torch.testing.assert_close(d.eigenvalues[b], values.flip(0)[:4], rtol=1e-8, atol=0)
        found, truth = d.eigenvectors[b].flatten(1), vectors.flip(1)[:, :4].T
        torch.testing.assert_close(found.T @ found, truth.T @ truth, rtol=0, atol=1e-7)
        torch.testing.assert_close(d.sensitivity[b].flatten(), fisher.diagonal(), rtol=1e-7, atol=1e-12)
        torch.testing.assert_close(d.trace[b], fisher.trace(), rtol=1e-8, atol=0)
        torch.testing.assert_close(d.eigenimages[b].flatten(1), found @ m, rtol=0, atol=1e-10)
    torch.testing.assert_close(d.high + d.low, x)


@pytest.mark.parametrize("name", ["noise map", "low-pass"])
def test_a_unit_step_along_an_eigenimage_costs_half_the_eigenvalue(cnn: Networks, name: str) -> None:
    shape = SHAPES["2d"]
    network, x, metric = cnn(shape, 4).double(), _image(shape), _metrics(shape)[name]
    d = decompose(network, x, metric=metric, rank=2)
    step = 1e-4
    for i in range(2):
        before = network(x).log_softmax(1)
        after = network(x + step * d.eigenimages[:, i]).log_softmax(1)
        divergence = (before.exp() * (before - after)).sum(1)
        torch.testing.assert_close(divergence.detach(), 0.5 * step**2 * d.eigenvalues[:, i], rtol=1e-2, atol=0)
    assert bool((locality_radius(network, d) > step).all())


def test_noise_of_one_number_scales_the_eigenvalues_by_its_square(cnn: Networks) -> None:
    shape = SHAPES["3d"]
    network, x = cnn(shape, 4).double(), _image(shape)
    plain, noisy = decompose(network, x), decompose(network, x, metric=0.25)
    torch.testing.assert_close(noisy.eigenvalues, 0.0625 * plain.eigenvalues, rtol=1e-12, atol=0)
    torch.testing.assert_close(noisy.eigenvectors, plain.eigenvectors, rtol=0, atol=1e-12)
    assert noisy.record["units"] == "nats per (standard deviation of the noise)^2"
    assert noisy.record["metric"] == {"kind": "noise level", "sigma": 0.25}


@pytest.mark.parametrize("sigma", [0.4, 1.5, 6.0])
def test_low_pass_is_scipy_s_gaussian_filter_with_reflected_edges(sigma: float) -> None:
    x = _image((2, 9, 14), 1)
    truth = gaussian_filter(x.numpy(), sigma, mode="reflect", truncate=6.0, axes=(2, 3))
    torch.testing.assert_close(GaussianLowPass(sigma).apply(x), torch.from_numpy(truth), rtol=0, atol=1e-7)


@pytest.mark.parametrize("sigma", [(0.6, 3.5, 0.0), (11.0, 1.3, 2.0)])
def test_low_pass_of_many_blocks_is_scipy_s_along_every_axis_and_self_adjoint(sigma: tuple[float, ...]) -> None:
    x, y = (torch.randn(2, 1, 70, 33, 101, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in (5, 6))
    metric = GaussianLowPass(sigma)
    truth = gaussian_filter(x.numpy(), sigma, mode="reflect", truncate=6.0, axes=(2, 3, 4))
    torch.testing.assert_close(metric.apply(x), torch.from_numpy(truth), rtol=0, atol=1e-7)
    torch.testing.assert_close(metric.apply(x.float()), metric.apply(x).float(), rtol=0, atol=1e-6)
    torch.testing.assert_close((metric.apply(x) * y).sum(), (x * metric.apply(y)).sum(), rtol=1e-12, atol=0)


def test_low_pass_keeps_constants_and_its_eigenimages_are_smooth(cnn: Networks) -> None:
    constant = torch.full((1, 1, 6, 11), 3.0, dtype=torch.float64)
    torch.testing.assert_close(GaussianLowPass(2.0).apply(constant), constant)
    wide = torch.full((2, 1, 17, 31), 3.0, dtype=torch.float64)  # made of two narrower ones
    torch.testing.assert_close(GaussianLowPass([5.0, 7.5]).apply(wide), wide, rtol=1e-8, atol=0)
    network, x = cnn((1, 24, 20), 4).double(), _image((1, 24, 20), 1)
    rough = decompose(network, x, rank=1).eigenimages[0, 0, 0]
    smooth = decompose(network, x, rank=1, metric=GaussianLowPass(2.0)).eigenimages[0, 0, 0]
    roughness = [float(image.diff(dim=0).square().sum() / image.square().sum()) for image in (rough, smooth)]
    assert roughness[1] < 0.2 * roughness[0]


class _Shift(Metric):
    unit: ClassVar[str] = "shift"

    def apply(self, images: Tensor) -> Tensor:
        return images.roll(1, -1)

    def describe(self) -> dict[str, Any]:
        return {"kind": "shift"}


class _Crop(_Shift):
    def apply(self, images: Tensor) -> Tensor:
        return images[..., 1:]


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (_Shift(), "not self-adjoint"),
        (_Crop(), "must keep their shape"),
        (torch.ones(3, 3), "noise map has shape"),
        (GaussianLowPass([1.0, 1.0, 1.0]), "3 widths for images with 2 spatial axes"),
    ],
)
def test_metric_that_does_not_fit_is_refused(cnn: Networks, metric: Any, message: str) -> None:
    with pytest.raises(IFIMError, match=message):
        decompose(cnn((1, 7, 5), 4).double(), _image((1, 7, 5)), metric=metric)


@pytest.mark.parametrize("sigma", [-1.0, 0.0, float("nan"), float("inf")])
def test_noise_level_that_is_none_is_refused(sigma: float) -> None:
    with pytest.raises(IFIMError, match="noise level must be finite"):
        NoiseLevel(sigma)


def test_negative_width_is_refused() -> None:
    with pytest.raises(IFIMError, match="give voxels"):
        GaussianLowPass([1.0, -2.0])
