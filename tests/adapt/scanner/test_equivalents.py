"""The differentiable equivalents: MONAI's own values in every setting, and the derivative that MONAI's values really have."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    ClipIntensityPercentiles,
    ClipIntensityPercentilesd,
    GaussianSmooth,
    NormalizeIntensity,
    NormalizeIntensityd,
    ScaleIntensity,
    ScaleIntensityd,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    ScaleIntensityRangePercentilesd,
)
from torch import Tensor

from monai_ifim.adapt.scanner.equivalents import equivalent_of, percentile

SHAPE = (3, 7, 9, 5)
GENERATOR_SEED = 41
BOOLEANS = (False, True)
STEP = 2e-2  # of difference quotients


def _image(shape: tuple[int, ...] = SHAPE, zeros: bool = False) -> Tensor:
    """Channels of different means and spreads, skewed, without ties; with `zeros`, a third of the voxels is 0."""
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    values = torch.randn(shape, generator=generator).exp() * 90 - 60
    values *= torch.linspace(0.5, 2.0, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    values += torch.linspace(-30, 70, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return torch.where(torch.rand(shape, generator=generator) < 1 / 3, 0, values) if zeros else values


def _separated(zeros: bool = False) -> Tensor:
    """No two voxels nearer to each other than 0.15, so that a small step changes no order; channels overlap but differ."""
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    count = int(np.prod(SHAPE))
    values = 0.25 * torch.arange(count) + 0.1 * torch.rand(count, generator=generator) - 90
    order = (torch.rand(SHAPE, generator=generator) + 0.4 * torch.arange(SHAPE[0]).reshape(-1, 1, 1, 1)).flatten().argsort()
    image = torch.empty(count).index_copy(0, order, values).reshape(SHAPE)
    return torch.where(torch.rand(SHAPE, generator=generator) < 1 / 3, 0, image) if zeros else image


def _images() -> dict[str, Tensor]:
    empty_channel = _image()
    empty_channel[1] = 0
    constant_channel = _image()
    constant_channel[2] = 0.1  # whose float32 mean is another number
    return {
        "skewed": _image(),
        "zeros": _image(zeros=True),
        "whole numbers": _image().round(),
        "empty channel": empty_channel,
        "constant channel": constant_channel,
        "constant": torch.full(SHAPE, -4.25),
        "all zero": torch.zeros(SHAPE),
        "float64": _image().double(),
        "2D": _image((2, 11, 8)),
    }


IMAGES = _images()
EACH_IMAGE = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())


def _by_channel(values: tuple[float, float, float]) -> dict[str, Any]:
    return {"none": None, "list": list(values), "array": np.array(values, dtype=np.float32), "tensor": torch.tensor(values)}


def _whole_image(value: float) -> dict[str, Any]:
    image = np.full(SHAPE, value) * (1 + np.arange(SHAPE[1]).reshape(1, -1, 1, 1))
    return {"none": None, "number": value, "array": image, "tensor": torch.from_numpy(image).float()}


def _normalisations() -> dict[str, Callable[..., NormalizeIntensity]]:
    found: dict[str, dict[str, Any]] = {}
    for nonzero, channel_wise in product(BOOLEANS, BOOLEANS):
        subtrahends = _by_channel((3.0, -40.5, 0.0)) if channel_wise else _whole_image(12.5)
        divisors = _by_channel((30.0, 0.0, 7.5)) if channel_wise else _whole_image(44.0)
        for (sub, subtrahend), (div, divisor) in product(subtrahends.items(), divisors.items()):
            name = f"subtrahend {sub}, divisor {div}, nonzero {nonzero}, channel_wise {channel_wise}"
            settings = {"subtrahend": subtrahend, "divisor": divisor, "nonzero": nonzero, "channel_wise": channel_wise}
            found[name] = settings
    return found


NORMALISATIONS = _normalisations()
SCALINGS = {
    f"{low}..{high}, factor {factor}, channel_wise {channel_wise}, {dtype}": {
        "minv": low,
        "maxv": high,
        "factor": factor,
        "channel_wise": channel_wise,
        "dtype": dtype,
    }
    for (low, high, factor), channel_wise, dtype in product(
        [(0.0, 1.0, None), (-1.0, 3.5, None), (2.0, None, None), (None, 2.0, None), (None, None, 0.3), (None, None, None)],
        BOOLEANS,
        [np.float32, np.float64, torch.float32, None],
    )
}
PERCENTILE_SCALINGS = {
    f"{lower}..{upper} to {low}..{high}, clip {clip}, relative {relative}, channel_wise {channel_wise}": {
        "lower": lower,
        "upper": upper,
        "b_min": low,
        "b_max": high,
        "clip": clip,
        "relative": relative,
        "channel_wise": channel_wise,
    }
    for (lower, upper), (low, high), clip, relative, channel_wise in product(
        [(0, 100), (1.0, 99.0), (12.5, 60.0), (50.0, 50.0)], [(0.0, 1.0), (-2.0, 5.0), (None, None)], BOOLEANS, BOOLEANS, BOOLEANS
    )
    if low is not None or not (relative or clip)
}
CLIPPINGS = {
    f"{lower}..{upper}, sharpness {sharpness}, channel_wise {channel_wise}": {
        "lower": lower,
        "upper": upper,
        "sharpness_factor": sharpness,
        "channel_wise": channel_wise,
    }
    for (lower, upper), sharpness, channel_wise in product(
        [(0, 100), (5.0, 95.0), (None, 80.0), (12.5, None), (50.0, 50.0)], [None, 0.05, 10.0], BOOLEANS
    )
}
TRANSFORMS: dict[str, tuple[type, dict[str, dict[str, Any]]]] = {
    "NormalizeIntensity": (NormalizeIntensity, NORMALISATIONS),
    "ScaleIntensity": (ScaleIntensity, SCALINGS),
    "ScaleIntensityRangePercentiles": (ScaleIntensityRangePercentiles, PERCENTILE_SCALINGS),
    "ClipIntensityPercentiles": (ClipIntensityPercentiles, CLIPPINGS),
}
EACH_TRANSFORM = pytest.mark.parametrize("name", TRANSFORMS)


def _equivalent(step: Any, statistics: str = "differentiate") -> Callable[[Tensor], Tensor]:
    compute = equivalent_of(step, statistics)  # type: ignore[arg-type]
    assert compute is not None
    return compute


def _assert_same(ours: Tensor, theirs: Tensor, what: str, largest: float = 1.0) -> None:
    """largest: of what is added up on the way."""
    theirs = theirs.as_subclass(Tensor)
    assert ours.dtype == theirs.dtype, what
    rounding = 1e-6 * max(largest, float(theirs.abs().max()))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=rounding, msg=lambda text: f"{what}: {text}")


def _by_monai(step: Any, image: Tensor) -> Tensor | None:
    """None where MONAI itself fails: lists beside whole images, numbers of channels as tensors together with nonzero."""
    try:
        return step(MetaTensor(image.clone()))
    except (IndexError, TypeError):
        return None


def _fits(settings: dict[str, Any], image: Tensor) -> bool:
    """Whether arrays among the settings are made for the image."""
    return image.shape == SHAPE or not any(isinstance(value, (list, np.ndarray, Tensor)) for value in settings.values())


@EACH_TRANSFORM
@EACH_IMAGE
@pytest.mark.filterwarnings("ignore:Divide by zero")
def test_values_and_type_are_monai_s_in_every_setting(name: str, image: Tensor) -> None:
    kind, settings = TRANSFORMS[name]
    compared = 0
    for what, setting in settings.items():
        if not _fits(setting, image):
            continue
        theirs = _by_monai(kind(**setting), image)
        if theirs is None:
            continue
        compared += 1
        for statistics in ("differentiate", "freeze"):
            largest = 0.1 * float(image.abs().max()) if kind is ClipIntensityPercentiles else 1.0
            _assert_same(_equivalent(kind(**setting), statistics)(image.clone()), theirs, what, largest)
    assert compared > (0.75 * len(settings) if image.shape == SHAPE else 3)


@pytest.mark.parametrize(
    ("step", "array"),
    [
        (NormalizeIntensityd("image", 3.0, 7.0), NormalizeIntensity(3.0, 7.0)),
        (NormalizeIntensityd("image", nonzero=True, channel_wise=True), NormalizeIntensity(nonzero=True, channel_wise=True)),
        (ScaleIntensityd("image", -1.0, 1.0), ScaleIntensity(-1.0, 1.0)),
        (
            ScaleIntensityRangePercentilesd("image", 2, 98, 0, 1, clip=True),
            ScaleIntensityRangePercentiles(2, 98, 0, 1, clip=True),
        ),
        (ClipIntensityPercentilesd("image", 2, 98), ClipIntensityPercentiles(2, 98)),
    ],
    ids=lambda step: type(step).__name__,
)
def test_a_dictionary_transform_has_the_equivalent_of_its_array_twin(step: Any, array: Any) -> None:
    image = _image(zeros=True)
    theirs = step({"image": MetaTensor(image.clone())})["image"].as_subclass(Tensor)
    torch.testing.assert_close(_equivalent(step)(image), theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(_equivalent(step)(image), _equivalent(array)(image))


@pytest.mark.parametrize("step", [NormalizeIntensity(), NormalizeIntensity(nonzero=True, channel_wise=True), ScaleIntensity()])
def test_an_image_of_whole_number_type_is_taken_as_monai_takes_it(step: Any) -> None:
    image = _image(zeros=True).round().to(torch.int16)
    _assert_same(_equivalent(step)(image.clone()), step(MetaTensor(image.clone())), type(step).__name__)


class _Wrapper:
    """A transform of somebody's that has MONAI's inside and does more."""

    def __init__(self) -> None:
        self.normalizer = NormalizeIntensity()

    def __call__(self, image: Tensor) -> Tensor:
        return self.normalizer(image) * 2


@pytest.mark.parametrize("step", [GaussianSmooth(1.0), ScaleIntensityRange(0, 1, 0, 2), _Wrapper(), torch.nn.Identity()])
def test_a_step_whose_effect_is_not_known_has_no_equivalent(step: Any) -> None:
    assert equivalent_of(step, "differentiate") is None


# Above a million voxels MONAI leaves torch for numpy; just below, torch.quantile counts places in float32.
LARGE = {"below": (1, 999_983), "above": (1, 1_000_003)}


@pytest.mark.parametrize("size", LARGE)
@pytest.mark.parametrize("heavy", BOOLEANS, ids=["plain", "a few voxels far out"])
def test_percentiles_of_large_images_are_monai_s(size: str, heavy: bool) -> None:
    image = torch.randn(LARGE[size], generator=torch.Generator().manual_seed(3))
    if heavy:
        image[0, :40] = torch.logspace(1, 6, 40)
    for step in (ScaleIntensityRangePercentiles(0.001, 99.9973, 0, 1), ClipIntensityPercentiles(0.7, 99.9971)):
        _assert_same(_equivalent(step)(image), step(MetaTensor(image.clone())), type(step).__name__)


@pytest.mark.parametrize("share", [0, 0.3, 12.5, 50, 77.7, 100])
@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_percentile_is_numpy_s(share: float, count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    assert float(percentile(values, share)) == pytest.approx(float(np.percentile(values.numpy(), share)), rel=1e-12)


def _directional(compute: Callable[[Tensor], Tensor], image: Tensor, weights: Tensor, direction: Tensor) -> float:
    """<w, J v> by the gradient."""
    leaf = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((compute(leaf) * weights).sum(), leaf)
    return float((gradient.double() * direction).sum())


def _differenced(step: Any, image: Tensor, weights: Tensor, direction: Tensor, size: float) -> float:
    """<w, J v> by central differences of MONAI's own output, summed in float64."""
    ahead, behind = (step(MetaTensor(image + sign * size * direction)).as_subclass(Tensor).double() for sign in (1, -1))
    return float((weights * (ahead - behind)).sum() / (2 * size))


def _directions(image: Tensor, hold_zeros: bool) -> dict[str, Tensor]:
    """One at random and those that every statistic feels: brighter, steeper."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(8))
    found = {"random": noise, "brighter": torch.ones_like(image), "steeper": (image - image.mean()) / image.std()}
    return {name: torch.where(image == 0, 0, values) if hold_zeros else values for name, values in found.items()}


DERIVATIVES = {
    "normalise": NormalizeIntensity(),
    "normalise channels": NormalizeIntensity(channel_wise=True),
    "normalise nonzero": NormalizeIntensity(nonzero=True),
    "normalise nonzero of channels": NormalizeIntensity(nonzero=True, channel_wise=True),
    "normalise, given subtrahend": NormalizeIntensity(subtrahend=10.0),
    "normalise, given divisors": NormalizeIntensity(divisor=[10.0, 20.0, 30.0], channel_wise=True),
    "scale": ScaleIntensity(-1.0, 2.0),
    "scale channels": ScaleIntensity(channel_wise=True),
    "scale by a factor": ScaleIntensity(None, None, 0.7),
    "percentiles": ScaleIntensityRangePercentiles(3.1, 91.7, 0.0, 1.0),
    "percentiles, clipped": ScaleIntensityRangePercentiles(3.1, 91.7, 0.0, 1.0, clip=True),
    "percentiles, relative": ScaleIntensityRangePercentiles(3.1, 91.7, -1.0, 1.0, clip=True, relative=True),
    "percentiles of channels": ScaleIntensityRangePercentiles(3.1, 91.7, None, None, channel_wise=True),
    "clip": ClipIntensityPercentiles(3.1, 91.7),
    "clip above": ClipIntensityPercentiles(None, 91.7),
    "clip softly": ClipIntensityPercentiles(3.1, 91.7, sharpness_factor=0.05, channel_wise=True),
    "clip softly above": ClipIntensityPercentiles(None, 91.7, sharpness_factor=0.05),
}
EACH_DERIVATIVE = pytest.mark.parametrize("step", DERIVATIVES.values(), ids=DERIVATIVES.keys())


@EACH_DERIVATIVE
def test_the_derivative_is_that_of_monai_s_output(step: Any) -> None:
    nonzero = getattr(step, "nonzero", False)
    image = _separated(zeros=nonzero)
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    output = step(MetaTensor(image.clone())).as_subclass(Tensor)
    weights += (output - output.mean()) / output.std() + 1
    for name, direction in _directions(image, nonzero).items():
        expected = _differenced(step, image, weights, direction, STEP)
        found = _directional(_equivalent(step), image, weights, direction)
        scale = abs(expected) + 0.05 * float((output.std() / image.std()) * weights.abs().sum())
        assert abs(found - expected) < 8e-3 * scale, name


@EACH_DERIVATIVE
def test_frozen_the_derivative_is_that_with_the_statistics_held_at_their_values(step: Any) -> None:
    """The frozen twin, with numbers in the place of statistics, made of MONAI's own transforms by hand."""
    nonzero = getattr(step, "nonzero", False)
    image = _separated(zeros=nonzero)
    held = _held(step, image)
    weights = torch.randn(image.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64) + 1
    torch.testing.assert_close(held(image), step(MetaTensor(image.clone())).as_subclass(Tensor).double(), rtol=1e-4, atol=1e-4)
    for name, direction in _directions(image, nonzero).items():
        moved = (held(image + sign * STEP * direction) for sign in (1, -1))
        ahead, behind = ((weights * values).sum() for values in moved)
        expected = float((ahead - behind) / (2 * STEP))
        scale = float((held(image).std() / image.std()) * weights.abs().sum()) / image.numel() ** 0.5
        found = _directional(_equivalent(step, "freeze"), image, weights, direction)
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-3 * scale), name


def _held(step: Any, image: Tensor) -> Callable[[Tensor], Tensor]:
    """The step as a function of each voxel alone, in float64, its statistics taken once from `image` by numpy."""
    parts = [(part, index) for index, part in enumerate(image)] if step.channel_wise else [(image, None)]
    voxelwise = [_voxelwise(step, part.double().numpy(), index) for part, index in parts]
    if step.channel_wise:
        return lambda x: torch.stack([function(part.double()) for function, part in zip(voxelwise, x, strict=True)])
    return lambda x: voxelwise[0](x.double())


def _voxelwise(step: Any, part: Any, channel: int | None) -> Callable[[Tensor], Tensor]:
    if isinstance(step, NormalizeIntensity):
        chosen = part[part != 0] if step.nonzero else part
        mean = chosen.mean() if step.subtrahend is None else step.subtrahend
        spread = chosen.std() if step.divisor is None else step.divisor if channel is None else step.divisor[channel]
        return lambda x: torch.where(x == 0, 0, (x - mean) / spread) if step.nonzero else (x - mean) / spread
    if isinstance(step, ScaleIntensity):
        if step.minv is None:
            return lambda x: x * (1 + step.factor)
        return lambda x: (x - part.min()) / np.ptp(part) * (step.maxv - step.minv) + step.minv
    low, high = (None if share is None else float(np.percentile(part, share)) for share in (step.lower, step.upper))
    if isinstance(step, ScaleIntensityRangePercentiles):
        b_min, b_max = step.b_min, step.b_max
        if step.relative:
            b_min, b_max = (b_min + (b_max - b_min) * share / 100 for share in (step.lower, step.upper))
        scaled = _line(low, high, b_min, b_max)
        return lambda x: scaled(x).clamp(b_min, b_max) if step.clip else scaled(x)
    if step.sharpness_factor is None:
        return lambda x: x.clamp(low, high)
    return lambda x: _softly(x, low, high, step.sharpness_factor)


def _line(low: Any, high: Any, b_min: Any, b_max: Any) -> Callable[[Tensor], Tensor]:
    if b_min is None:
        return lambda x: (x - low) / (high - low)
    return lambda x: (x - low) / (high - low) * (b_max - b_min) + b_min


def _softly(x: Tensor, low: float | None, high: float | None, sharpness: float) -> Tensor:
    """As MONAI's documentation has it, with log(1 + exp) written out."""
    result = x
    if low is not None:
        result = result + torch.log1p(torch.exp(-sharpness * (x - low))) / sharpness
    if high is not None:
        result = result - torch.log1p(torch.exp(sharpness * (x - high))) / sharpness
    return result


def test_monai_s_own_normalisation_has_the_gradient_of_another_function() -> None:
    """Why there is an equivalent: MONAI takes mean and deviation out of the graph, so that making the image brighter seems to
    change what it leaves as it is."""
    image, step = _image(), NormalizeIntensity()
    weights, brighter = torch.ones(image.shape, dtype=torch.float64), torch.ones_like(image)

    def theirs(leaf: Tensor) -> Tensor:
        return step(MetaTensor(leaf * 1)).as_subclass(Tensor)

    truth = _differenced(step, image, weights, brighter, 1e-2)
    assert abs(truth) < 1e-2
    assert _directional(_equivalent(step), image, weights, brighter) == pytest.approx(0, abs=1e-2)
    assert _directional(theirs, image, weights, brighter) == pytest.approx(image.numel() / float(image.std()), rel=1e-2)


def test_monai_s_own_normalisation_of_nonzero_channels_has_no_backward_pass() -> None:
    leaf = _image(zeros=True).requires_grad_(True)
    with pytest.raises(RuntimeError, match="view"):
        NormalizeIntensity(nonzero=True, channel_wise=True)(MetaTensor(leaf * 1))


@pytest.mark.parametrize("statistics", ["differentiate", "freeze"])
@pytest.mark.parametrize("channel_wise", BOOLEANS)
def test_a_voxel_that_stays_zero_has_no_derivative(statistics: str, channel_wise: bool) -> None:
    """Any change would make it one of those that are normalised, at a leap: no derivative describes that."""
    leaf = _image(zeros=True).requires_grad_(True)
    output = _equivalent(NormalizeIntensity(nonzero=True, channel_wise=channel_wise), statistics)(leaf)
    (gradient,) = torch.autograd.grad(output.pow(3).sum() + output.sum(), leaf)
    assert not gradient[leaf == 0].any()
    assert gradient[leaf != 0].any()


@pytest.mark.parametrize("channel_wise", BOOLEANS)
def test_an_image_of_zeros_and_a_constant_one_have_a_finite_gradient(channel_wise: bool) -> None:
    for name in ("empty channel", "constant channel", "constant", "all zero"):
        for kind, settings in TRANSFORMS.values():
            for setting in settings.values():
                if setting.get("channel_wise") != channel_wise or setting.get("dtype", np.float32) is not np.float32:
                    continue
                leaf = IMAGES[name].clone().requires_grad_(True)
                (gradient,) = torch.autograd.grad(_equivalent(kind(**setting))(leaf).sum(), leaf)
                assert torch.isfinite(gradient).all(), (name, kind, setting)


def test_voxels_that_share_a_percentile_share_its_derivative_in_equal_parts() -> None:
    """The 40th percentile of seven lies between the third and the fourth value, both 3."""
    values = torch.tensor([5.0, 1.0, 3.0, 3.0, 9.0, 3.0, 7.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(percentile(values, 40.0), values)
    torch.testing.assert_close(gradient, torch.tensor([0.0, 0.0, 1 / 3, 1 / 3, 0.0, 1 / 3, 0.0]))
