"""Scanner space against closed forms, dense matrices and difference quotients of the untouched preprocessing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    CenterSpatialCrop,
    Compose,
    Flip,
    NormalizeIntensity,
    Orientation,
    Resize,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    Spacing,
    SpatialPad,
)
from scipy.linalg import block_diag
from torch import Tensor, nn

from monai_ifim import decompose_scan

Array = npt.NDArray[Any]
SHAPE = (9, 7, 8)
PLANE = (13, 9)
METHODS = pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
STATISTICS = pytest.mark.parametrize("statistics", ["differentiate", "freeze"])


@pytest.fixture
def linear_steps() -> Compose:
    """Nothing that depends on the values; computed in float64, though MONAI's Resize rounds what it gives to float32."""
    return Compose(
        [
            Orientation(axcodes="PSR", labels=None),
            Spacing(pixdim=(1.9, 2.6, 1.7), padding_mode="border", dtype=np.float64),
            ScaleIntensityRange(-150.0, 250.0, -1.0, 3.0, dtype=np.float64),
            SpatialPad((11, 14, 13)),
            Resize((8, 9, 10), mode="trilinear", align_corners=True, dtype=torch.float64),
            CenterSpatialCrop((7, 6, 9)),
        ]
    )


@pytest.fixture
def make_scan(oblique: Array) -> Callable[..., MetaTensor]:
    """A scan in whole hundreds, every voxel another value."""

    def make(channels: int = 1, shape: tuple[int, ...] = SHAPE, dtype: torch.dtype = torch.float64) -> MetaTensor:
        values = torch.randn(channels, *shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 120 + 60
        affine = torch.from_numpy(oblique) if len(shape) == 3 else torch.tensor(np.diag([1.3, 0.7, 1.0, 1.0]))
        return MetaTensor(values.to(dtype), affine=affine)

    return make


def dense_resampling(steps: Compose, scan: MetaTensor) -> Array:
    """Matrix [seen, scan voxels] of one channel, column by column: what MONAI makes of each unit image, made large, so that
    float32 rounds little of the difference."""
    count = scan[0].numel()
    units = 1e5 * torch.eye(count, dtype=torch.float64).reshape(count, *scan.shape[1:])
    images = [steps(MetaTensor(values, affine=scan.affine)).as_subclass(Tensor) for values in (units, torch.zeros_like(units))]
    return (images[0].double() - images[1].double()).flatten(1).T.numpy() / 1e5


def linear_classifier(seen: int, classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.Flatten(), nn.Linear(seen, classes)).double().eval()


def closed_form(network: nn.Module, steps: Compose, scan: MetaTensor) -> Array:
    """F = W^T S W, W the classifier's weights times the resampling, S = diag p - p p^T."""
    resampling = block_diag(*[dense_resampling(steps, scan)] * len(scan))
    weights = network[1].weight.detach().numpy() @ resampling
    p = network(steps(scan.clone()).as_subclass(Tensor).double()[None])[0].softmax(0).detach().numpy()
    return weights.T @ (np.diag(p) - np.outer(p, p)) @ weights


def assert_pairs(found: Any, fisher: Array, tolerance: float, kept: int) -> None:
    """Eigenvalues and the projector on the kept space, to `tolerance` of the largest eigenvalue and of one."""
    values, vectors = np.linalg.eigh(fisher)
    values, vectors = values[::-1][:kept], vectors[:, ::-1][:, :kept]
    assert int(found.rank[0]) == kept
    np.testing.assert_allclose(found.eigenvalues[0, :kept], values, rtol=tolerance)
    mine = found.eigenvectors[0, :kept].flatten(1).to(torch.float64).numpy().T
    np.testing.assert_allclose(mine @ mine.T, vectors @ vectors.T, atol=tolerance)
    np.testing.assert_allclose(found.sensitivity[0].flatten(), fisher.diagonal(), atol=tolerance * fisher.diagonal().max())
    assert float(found.trace[0]) == pytest.approx(np.trace(fisher), rel=tolerance)


@METHODS
@pytest.mark.parametrize("channels", [1, 2])
def test_linear_preprocessing_and_classifier_have_the_closed_form(
    channels: int, method: Any, linear_steps: Compose, make_scan: Callable[..., MetaTensor]
) -> None:
    scan = make_scan(channels)
    network = linear_classifier(channels * 7 * 6 * 9, 5)
    fisher = closed_form(network, linear_steps, scan)
    found = decompose_scan(network, linear_steps, scan, method=method, energy=1.0, tolerance=1e-9)
    assert_pairs(found, fisher, 1e-6, 4)
    high, low, plain = found.high[0].numpy(), found.low[0].numpy(), scan.as_subclass(Tensor).numpy()
    vectors = np.linalg.eigh(fisher)[1][:, -4:]
    np.testing.assert_allclose(high.ravel(), vectors @ (vectors.T @ plain.ravel()), atol=1e-6 * np.abs(plain).max())
    np.testing.assert_allclose(high + low, plain, rtol=0, atol=1e-12 * np.abs(plain).max())


def test_precision_float64_gives_the_closed_form_of_a_float32_network_and_scan(
    linear_steps: Compose, make_scan: Callable[..., MetaTensor]
) -> None:
    scan, network = make_scan(2, dtype=torch.float32), linear_classifier(2 * 7 * 6 * 9, 4).float()
    wide = copy.deepcopy(network).double()
    fisher = closed_form(wide, linear_steps, MetaTensor(scan.as_subclass(Tensor).double(), affine=scan.affine))
    assert_pairs(decompose_scan(network, linear_steps, scan, precision="float64", energy=1.0), fisher, 1e-6, 3)
    assert_pairs(decompose_scan(network, linear_steps, scan, energy=1.0), fisher, 2e-4, 3)


def test_precision_float64_goes_with_steps_that_end_in_float32(make_scan: Callable[..., MetaTensor]) -> None:
    steps = Compose([Resize((4, 5, 6)), NormalizeIntensity()])
    network = linear_classifier(4 * 5 * 6, 3).float()
    wide, narrow = (decompose_scan(network, steps, make_scan(), precision=p) for p in ("float64", None))
    torch.testing.assert_close(wide.eigenvalues, narrow.eigenvalues, rtol=1e-4, atol=0)
    assert wide.high.dtype == torch.float64


@METHODS
def test_planes_have_the_closed_form(method: Any, make_scan: Callable[..., MetaTensor]) -> None:
    steps = Compose(
        [
            Flip(spatial_axis=0),
            ScaleIntensityRange(0.0, 300.0, 0.0, 1.0, dtype=np.float64),
            SpatialPad((15, 15)),
            Resize((6, 8), mode="bilinear", dtype=torch.float64),
        ]
    )
    scan, network = make_scan(2, PLANE), linear_classifier(2 * 6 * 8, 4)
    found = decompose_scan(network, steps, scan, method=method, energy=1.0, tolerance=1e-9)
    assert_pairs(found, closed_form(network, steps, scan), 1e-6, 3)


@pytest.mark.parametrize(("settings", "kept"), [({"rank": 2}, 2), ({"rank": 1}, 1), ({"energy": 0.7}, None)])
def test_rank_and_energy_choose_from_the_closed_form(
    settings: dict[str, Any], kept: int | None, linear_steps: Compose, make_scan: Callable[..., MetaTensor]
) -> None:
    scan, network = make_scan(), linear_classifier(7 * 6 * 9, 5)
    fisher = closed_form(network, linear_steps, scan)
    shares = np.cumsum(np.linalg.eigvalsh(fisher)[::-1]) / np.trace(fisher)
    kept = int(np.searchsorted(shares, 0.7)) + 1 if kept is None else kept
    assert_pairs(decompose_scan(network, linear_steps, scan, **settings), fisher, 1e-6, kept)


# A network that is curved, behind steps whose statistics are the image's own.


@pytest.fixture
def own_statistics() -> Compose:
    return Compose(
        [
            Orientation(axcodes="LPI", labels=None),
            Spacing(pixdim=(1.8, 2.9, 3.1), padding_mode="border"),
            NormalizeIntensity(channel_wise=True),
            ScaleIntensityRangePercentiles(5.3, 93.1, 0.0, 1.0, clip=True),
            Resize((6, 7, 5)),
        ]
    )


@pytest.fixture
def curved() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return nn.Sequential(nn.Conv3d(2, 3, 3), nn.GELU(), nn.Flatten(), nn.Linear(3 * 4 * 5 * 3, 4)).eval()


def differenced_fisher(network: nn.Module, steps: Compose, scan: MetaTensor, step: float) -> Array:
    """F by central differences: a voxel of the scan is moved, and all of MONAI and the network runs on what comes."""
    wide = copy.deepcopy(network).double()

    def logits(values: Tensor) -> Tensor:
        seen = steps(MetaTensor(values.reshape(scan.shape), affine=scan.affine)).as_subclass(Tensor)
        return wide(seen.double()[None])[0].detach()

    flat = scan.as_subclass(Tensor).flatten()
    jacobian = torch.empty(len(logits(flat)), flat.numel(), dtype=torch.float64)
    for voxel in range(flat.numel()):
        moved = [flat.index_add(0, torch.tensor([voxel]), torch.tensor([sign * step], dtype=flat.dtype)) for sign in (1, -1)]
        jacobian[:, voxel] = (logits(moved[0]) - logits(moved[1])) / (2 * step)
    p = logits(flat).softmax(0)
    return (jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian).numpy()


def frozen_by_hand(steps: Compose, scan: MetaTensor) -> Compose:
    """The same with numbers, taken from this scan by numpy, in the place of the image's own statistics."""
    geometry = Compose(steps.transforms[:2])
    seen = geometry(scan.clone()).numpy()
    means, spreads = (np.array([function(channel) for channel in seen]) for function in (np.mean, np.std))
    normalised = (seen - means[:, None, None, None]) / spreads[:, None, None, None]
    low, high = np.percentile(normalised, [5.3, 93.1])
    numbers = [
        NormalizeIntensity(subtrahend=means.tolist(), divisor=spreads.tolist(), channel_wise=True),
        ScaleIntensityRange(float(low), float(high), 0.0, 1.0, clip=True),
    ]
    return Compose([*geometry.transforms, *numbers, steps.transforms[-1]])


@pytest.mark.slow
def test_steps_with_statistics_of_their_own_give_the_fisher_information_of_difference_quotients(
    own_statistics: Compose, curved: nn.Module, make_scan: Callable[..., MetaTensor]
) -> None:
    scan = make_scan(2, (5, 3, 4), torch.float32)
    fisher = differenced_fisher(curved, own_statistics, scan, 0.05)
    found = decompose_scan(curved, own_statistics, scan, energy=1.0)
    assert_pairs(found, fisher, 1e-2, 3)


@pytest.mark.slow
def test_frozen_they_give_that_of_difference_quotients_with_the_statistics_held(
    own_statistics: Compose, curved: nn.Module, make_scan: Callable[..., MetaTensor]
) -> None:
    scan = make_scan(2, (5, 3, 4), torch.float32)
    held = frozen_by_hand(own_statistics, scan)
    fisher = differenced_fisher(curved, held, scan, 0.05)
    found = decompose_scan(curved, own_statistics, scan, energy=1.0, statistics="freeze")
    assert_pairs(found, fisher, 1e-2, 3)
    free = decompose_scan(curved, own_statistics, scan, energy=1.0)
    assert abs(float(free.eigenvalues[0, 0] / found.eigenvalues[0, 0]) - 1) > 0.05


@STATISTICS
@pytest.mark.parametrize("curvature", [False, True])
def test_what_normalisation_takes_away_cannot_change_the_answer(
    statistics: Any, curvature: bool, make_scan: Callable[..., MetaTensor]
) -> None:
    """Brightness and contrast of the whole scan: their Rayleigh quotient is 0 where the statistics are the scan's own, and is
    not where they are frozen."""
    scan = make_scan(1, dtype=torch.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = nn.Sequential(nn.Conv3d(1, 2, 3), nn.GELU() if curvature else nn.Identity(), nn.Flatten(), nn.LazyLinear(3))
        network(torch.zeros(1, 1, *SHAPE))
    found = decompose_scan(network.eval(), Compose([NormalizeIntensity()]), scan, energy=1.0, statistics=statistics)
    plain = scan.as_subclass(Tensor)
    for direction in (torch.ones_like(plain), plain - plain.mean()):
        unit = (direction / direction.norm()).flatten().double()
        projections = found.eigenvectors[0].flatten(1).double() @ unit
        share = float((found.eigenvalues[0] * projections.square()).sum() / found.trace[0])
        assert (share < 1e-8) == (statistics == "differentiate")


def test_the_record_says_what_was_done(own_statistics: Compose, curved: nn.Module, make_scan: Callable[..., MetaTensor]) -> None:
    scan = make_scan(2, dtype=torch.float32)
    record = decompose_scan(curved, own_statistics, scan, statistics="freeze", resolution=2.5).record
    assert record["preprocessing"] == {
        "steps": ["Orientation", "Spacing", "NormalizeIntensity", "ScaleIntensityRangePercentiles", "Resize"],
        "equivalents": ["NormalizeIntensity", "ScaleIntensityRangePercentiles"],
        "statistics": "freeze",
        "zeros_held": False,
        "resolution": 2.5,
        "resolution_mm": [2.5, 2.5, 2.5],
    }
    plain = decompose_scan(curved, own_statistics, scan).record["preprocessing"]
    assert (plain["statistics"], plain["resolution"], plain["resolution_mm"]) == ("differentiate", None, None)


# Noise and resolution.


def test_a_noise_level_scales_eigenvalues_by_its_square(
    own_statistics: Compose, curved: nn.Module, make_scan: Callable[..., MetaTensor]
) -> None:
    scan = make_scan(2, dtype=torch.float32)
    plain, noisy = (decompose_scan(curved, own_statistics, scan, metric=sigma) for sigma in (None, 12.0))
    torch.testing.assert_close(noisy.eigenvalues, 144 * plain.eigenvalues, rtol=1e-5, atol=0)
    torch.testing.assert_close(noisy.high, plain.high, rtol=0, atol=2e-3)


@METHODS
def test_a_noise_map_weights_the_closed_form(method: Any, linear_steps: Compose, make_scan: Callable[..., MetaTensor]) -> None:
    scan, network = make_scan(2), linear_classifier(2 * 7 * 6 * 9, 4)
    sigma = 0.5 + torch.rand(scan.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64) * 20
    weights = sigma.flatten().numpy()
    fisher = weights[:, None] * closed_form(network, linear_steps, scan) * weights
    found = decompose_scan(network, linear_steps, scan, method=method, metric=sigma, energy=1.0, tolerance=1e-9)
    assert_pairs(found, fisher, 1e-6, 3)


@METHODS
def test_a_resolution_is_a_gaussian_of_that_full_width_at_half_maximum(
    method: Any, linear_steps: Compose, make_scan: Callable[..., MetaTensor]
) -> None:
    """M built densely from the formula, with mirrored edges, by the scan's own voxel sizes (1.1, 2.3, 3.7 mm)."""
    scan, network, width = make_scan(), linear_classifier(7 * 6 * 9, 4), 4.7
    filters = [mirrored_gaussian(size, width / own) for size, own in zip(SHAPE, (1.1, 2.3, 3.7), strict=True)]
    metric = np.kron(np.kron(filters[0], filters[1]), filters[2])
    fisher = metric @ closed_form(network, linear_steps, scan) @ metric
    found = decompose_scan(network, linear_steps, scan, method=method, resolution=width, energy=1.0, tolerance=1e-9)
    assert_pairs(found, fisher, 1e-6, 3)
    assert found.record["metric"]["kind"] == "Gaussian low-pass"
    deviation = width / (2 * np.sqrt(2 * np.log(2)))
    np.testing.assert_allclose(found.record["metric"]["sigma_voxels"], deviation / np.array((1.1, 2.3, 3.7)), rtol=1e-6)


def mirrored_gaussian(size: int, width: float) -> Array:
    """Rows of a sampled Gaussian of full width at half maximum `width`, in voxels, what falls outside being mirrored back."""
    places = np.arange(-60, 61)
    weights = 0.5 ** ((2 * places / width) ** 2)
    matrix = np.zeros((size, size))
    for row in range(size):
        for place, weight in zip(row + places, weights / weights.sum(), strict=True):
            folded = place % (2 * size)
            matrix[row, min(folded, 2 * size - 1 - folded)] += weight
    return matrix


def test_the_network_s_resolution_is_its_voxel_size_along_each_axis_of_the_scan(make_scan: Callable[..., MetaTensor]) -> None:
    """The scan lies obliquely in the patient, the network's voxels are parallel to the patient's axes."""
    scan, pixdim = make_scan(1, dtype=torch.float32), np.array([4.0, 5.0, 9.0])
    spacing = Spacing(pixdim=tuple(pixdim), padding_mode="border", diagonal=True)
    steps = Compose([Orientation(axcodes="RAS", labels=None), spacing])
    widths = network_widths(steps, scan)
    axes = scan.affine.numpy()[:3, :3] / np.linalg.norm(scan.affine.numpy()[:3, :3], axis=0)
    seen = steps(scan.clone()).affine.numpy()[:3, :3]
    np.testing.assert_allclose(seen, np.diag(pixdim), atol=1e-6)
    for axis, width in zip(axes.T, widths, strict=True):
        crossed = np.linalg.inv(seen) @ (axis * width)  # a step of that length leads one network voxel on
        assert np.linalg.norm(crossed) == pytest.approx(1, rel=1e-6)


def test_equal_network_voxels_have_their_size_along_every_axis(make_scan: Callable[..., MetaTensor]) -> None:
    steps = Compose([Spacing(pixdim=(5.0, 5.0, 5.0)), Orientation(axcodes="SPL", labels=None)])
    assert network_widths(steps, make_scan(1, dtype=torch.float32)) == pytest.approx([5.0, 5.0, 5.0])


def test_axes_along_which_the_network_sees_no_coarser_than_the_scan_are_left_alone(make_scan: Callable[..., MetaTensor]) -> None:
    steps = Compose([Resize((3, 7, 40))])
    widths = network_widths(steps, make_scan(1, dtype=torch.float32))
    assert widths == pytest.approx([1.1 * 9 / 3, 0.0, 0.0])


def network_widths(steps: Compose, scan: MetaTensor) -> list[float]:
    seen = steps(scan.clone())
    network = nn.Sequential(nn.Flatten(), nn.Linear(seen.numel(), 3)).eval()
    record = decompose_scan(network, steps, scan, resolution="network").record
    assert record["preprocessing"]["resolution"] == "network"
    own = np.linalg.norm(scan.affine.numpy()[:3, :3], axis=0)
    widths = record["preprocessing"]["resolution_mm"]
    np.testing.assert_allclose(record["metric"]["sigma_voxels"], np.array(widths) / np.sqrt(8 * np.log(2)) / own, rtol=1e-9)
    return widths


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_without_a_resolution_eigenimages_are_combs_and_with_it_they_are_not(axis: int) -> None:
    """Resize by linear interpolation from a grid four times as fine reads two voxels of four: what the network cannot see, above
    its Nyquist frequency, then holds much of an eigenimage's power."""
    scan = MetaTensor(torch.randn(1, 48, 40, 56, generator=torch.Generator().manual_seed(3)), affine=torch.eye(4).double())
    steps = Compose([Resize((12, 10, 14), mode="trilinear")])
    network = nn.Sequential(nn.AvgPool3d(2), nn.Flatten(), nn.Linear(6 * 5 * 7, 3)).eval()
    shares = {}
    for resolution in (None, "network"):
        found = decompose_scan(network, steps, scan, rank=1, resolution=resolution)  # type: ignore[arg-type]
        image = found.eigenimages[0, 0, 0].numpy()
        power = np.abs(np.fft.fftn(image)) ** 2
        frequencies = np.abs(np.fft.fftfreq(image.shape[axis]))
        shares[resolution] = float(np.moveaxis(power, axis, 0)[frequencies > 0.5 / 4].sum() / power.sum())
    assert shares[None] > 0.3
    assert shares["network"] < 0.05
