"""Where the preprocessing tells zero from every other value, however small, no component may lift a zero."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CenterSpatialCrop,
    Compose,
    CropForeground,
    GaussianSmooth,
    NormalizeIntensity,
    Orientation,
    Resize,
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    Spacing,
    SpatialCrop,
    SpatialPad,
)
from torch import Tensor, nn

from monai_ifim import decompose_scan
from monai_ifim.adapt.scanner.preprocessing import scan_preprocessing
from monai_ifim.adapt.scanner.resolution import HeldZeros
from monai_ifim.adapt.scanner.space import ScannerNetwork
from monai_ifim.adapt.scanner.step_checks import is_discontinuous_at_zeros
from monai_ifim.core import GaussianLowPass

SIZE = (14, 12, 15)
LEAPING = {
    "normalised where not zero": [Resize(SIZE), NormalizeIntensity(nonzero=True, channel_wise=True)],
    "normalised where it is not the smallest": [ScaleIntensity(), Resize(SIZE), NormalizeIntensity(nonzero=True)],
    "cropped to what is not zero": [CropForeground(), Resize(SIZE), ScaleIntensityRange(0, 1000, 0, 1)],
    "normalised where not zero, far from the middle": [
        SpatialCrop(roi_start=(15, 2, 1), roi_end=(30, 13, 17)),
        NormalizeIntensity(nonzero=True, channel_wise=True),
    ],
    "both, after others": [
        Orientation(axcodes="LPS", labels=None),
        Spacing((1.9, 2.1, 1.7)),
        CropForeground(),
        Resize(SIZE),
        NormalizeIntensity(nonzero=True),
    ],
}
SMOOTH = {
    "nothing": [],
    "normalised as a whole": [Resize(SIZE), NormalizeIntensity()],
    "its range": [ScaleIntensity(), Resize(SIZE)],
    "its percentiles": [ScaleIntensityRangePercentiles(1, 99, 0, 1, clip=True), SpatialPad((40, 40, 40))],
    "a foreground elsewhere": [CropForeground(select_fn=lambda image: image > -500), Resize(SIZE)],
    "the middle alone": [CenterSpatialCrop((6, 6, 6)), NormalizeIntensity()],
}


@pytest.fixture
def stripped() -> MetaTensor:
    """A ball of whole numbers, zero around it, as a brain without its skull."""
    generator = torch.Generator().manual_seed(0)
    values = GaussianSmooth(1.5)(torch.randn(1, 30, 26, 34, generator=generator)).as_tensor() * 800 + 600
    axes = torch.meshgrid(*[torch.linspace(-1, 1, size) for size in values.shape[1:]], indexing="ij")
    values[:, torch.stack(axes).square().sum(0) > 0.64] = 0
    return MetaTensor(values.round(), affine=torch.tensor(np.diag([-1.1, 1.0, 0.9, 1.0])))


@pytest.fixture
def network() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = (nn.Conv3d(1, 4, 3), nn.GELU(), nn.AdaptiveAvgPool3d(3), nn.Flatten(), nn.Linear(108, 4))
        return nn.Sequential(*layers).eval()


@pytest.mark.parametrize("steps", LEAPING.values(), ids=LEAPING.keys())
def test_a_preprocessing_that_leaps_from_zero_is_found_out(steps: list[Any], stripped: MetaTensor) -> None:
    assert is_discontinuous_at_zeros(scan_preprocessing(Compose(steps)), stripped)
    assert is_discontinuous_at_zeros(scan_preprocessing(Compose(steps)), stripped + 1)  # though this scan has none


@pytest.mark.parametrize("steps", SMOOTH.values(), ids=SMOOTH.keys())
def test_one_that_does_not_is_not(steps: list[Any], stripped: MetaTensor) -> None:
    assert not is_discontinuous_at_zeros(scan_preprocessing(Compose(steps)), stripped)


@pytest.mark.parametrize("resolution", [None, "network", 3.0])
@pytest.mark.parametrize("steps", LEAPING.values(), ids=LEAPING.keys())
def test_a_step_along_the_eigenimage_costs_what_the_eigenvalue_says_through_the_untouched_preprocessing(
    steps: list[Any], resolution: Any, stripped: MetaTensor, network: nn.Module
) -> None:
    preprocessing = Compose(steps)
    found = decompose_scan(network, preprocessing, stripped, rank=1, resolution=resolution)
    eigenimage = found.eigenimages[0, 0]
    assert not eigenimage[stripped.as_subclass(Tensor) == 0].any()

    def answer(scan: Tensor) -> Tensor:
        with torch.no_grad():
            seen = preprocessing(MetaTensor(scan, affine=stripped.affine)).as_subclass(Tensor)[None]
            return network(seen).double().log_softmax(1)

    step = 0.05 / float(found.eigenvalues[0, 0]) ** 0.5
    plain = stripped.as_subclass(Tensor)
    log_p = answer(plain.clone())
    costs = [float((log_p.exp() * (log_p - answer(plain + sign * step * eigenimage))).sum()) for sign in (1, -1)]
    assert np.mean(costs) == pytest.approx(0.05**2 / 2, rel=0.1)


def test_without_it_such_a_step_would_cost_something_else(stripped: MetaTensor, network: nn.Module) -> None:
    """Why zeros are held: the filter's own eigenimage lifts them, and the preprocessing makes something else of the file."""
    preprocessing = Compose(LEAPING["normalised where not zero"])
    sigma = decompose_scan(network, preprocessing, stripped, resolution=3.0).record["metric"]["sigma_voxels"]
    found = decompose_scan(network, preprocessing, stripped, rank=1, metric=GaussianLowPass(sigma))
    step, plain = 0.01 / float(found.eigenvalues[0, 0]) ** 0.5, stripped.as_subclass(Tensor)
    with torch.no_grad():
        log_p, moved = (
            network(preprocessing(MetaTensor(scan)).as_subclass(Tensor)[None]).double().log_softmax(1)
            for scan in (plain.clone(), plain + step * found.eigenimages[0, 0])
        )
    assert float((log_p.exp() * (log_p - moved)).sum()) > 2 * 0.01**2 / 2


def test_holding_is_a_symmetric_matrix_that_leaves_zeros_out() -> None:
    scan = torch.randn(2, 5, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scan[:, 1:3, 2] = 0
    units = torch.eye(scan.numel(), dtype=torch.float64).reshape(-1, *scan.shape)
    plain, held = (metric.apply(units).flatten(1) for metric in (GaussianLowPass(1.1), HeldZeros(GaussianLowPass(1.1), scan)))
    moving = (scan != 0).flatten().double()
    torch.testing.assert_close(held, moving[:, None] * plain * moving)
    torch.testing.assert_close(held, held.T)


@pytest.mark.parametrize("resolution", [None, 3.0])
def test_the_record_says_whether_zeros_are_held(resolution: Any, stripped: MetaTensor, network: nn.Module) -> None:
    for steps, held in ((LEAPING["normalised where not zero"], True), (SMOOTH["normalised as a whole"], False)):
        record = decompose_scan(network, Compose(steps), stripped, resolution=resolution).record
        assert record["preprocessing"]["zeros_held"] is held
        assert (record["metric"] is None) == (resolution is None)
        json.dumps(record)


def test_zeros_of_a_scan_that_the_preprocessing_treats_like_all_others_are_not_held(
    stripped: MetaTensor, network: nn.Module
) -> None:
    found = decompose_scan(network, Compose(SMOOTH["normalised as a whole"]), stripped, rank=1)
    assert found.eigenvectors[0, 0][stripped.as_subclass(Tensor) == 0].any()


@pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
def test_held_zeros_take_rows_and_columns_out_of_the_fisher_information(
    method: Any, stripped: MetaTensor, network: nn.Module
) -> None:
    """Behind steps that are linear there, held or not is the one difference."""
    steps = Compose(LEAPING["normalised where not zero"])
    found = decompose_scan(network, steps, stripped, method=method, energy=1.0, tolerance=1e-6)
    moving = stripped.as_subclass(Tensor) != 0
    free = ScannerNetwork(network, scan_preprocessing(steps), stripped)
    leaf = stripped.as_subclass(Tensor)[None].clone().requires_grad_(True)
    logits = free(leaf.clone())[0]
    rows = [torch.autograd.grad(logit, leaf, retain_graph=True)[0][0][moving].double() for logit in logits]
    jacobian, p = torch.stack(rows), logits.detach().double().softmax(0)
    root = torch.linalg.cholesky(torch.diag(p) - torch.outer(p, p) + 1e-15 * torch.eye(4, dtype=torch.float64))
    values = torch.linalg.eigvalsh(root.T @ jacobian @ jacobian.T @ root).flip(0)[:3]
    torch.testing.assert_close(found.eigenvalues[0], values, rtol=1e-4, atol=0)


def test_zeros_alone_are_held_and_negative_values_move() -> None:
    """Hounsfield units of air and lung are negative."""
    generator = torch.Generator().manual_seed(2)
    values = torch.randint(-3, 4, (1, 4, 5, 3), generator=generator).double()
    assert min((values < 0).sum(), (values == 0).sum(), (values > 0).sum()) > 5
    scan, network = MetaTensor(values), nn.Sequential(nn.Flatten(), nn.Linear(60, 2).double()).eval()
    pipeline = scan_preprocessing(Compose([ScaleIntensityRange(-3, 3, -1, 1)]))
    gradients = []
    for held in (False, True):
        leaf = values[None].clone().requires_grad_(True)
        ScannerNetwork(network, pipeline, scan, zeros_held=held)(leaf)[0, 0].backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad[0])
    free, holding = gradients
    assert bool((free != 0).all())
    torch.testing.assert_close(holding, torch.where(values == 0, 0.0, free), rtol=0, atol=0)
