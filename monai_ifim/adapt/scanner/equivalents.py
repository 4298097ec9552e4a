"""Differentiable equivalents of MONAI's intensity transforms whose statistics come from the image itself.

MONAI takes means, percentiles and the like out of the autograd graph in some settings and sizes (`.item()`, numpy above a million
voxels) and writes into views in others, so that the gradient is silently that of another function, or none. These compute
the same values and keep the graph; with statistics="freeze" the statistics are constants, as they are for this scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    ClipIntensityPercentiles,
    ClipIntensityPercentilesd,
    NormalizeIntensity,
    NormalizeIntensityd,
    ScaleIntensity,
    ScaleIntensityd,
    ScaleIntensityRangePercentiles,
    ScaleIntensityRangePercentilesd,
)
from torch import Tensor
from torch.nn import functional as F

from monai_ifim.options import Statistics

Statistic = Callable[[Tensor], Tensor]

LARGEST_QUANTILE = 1_000_000  # values up to which MONAI takes percentiles with torch, in the image's dtype


def equivalent_of(step: Any, statistics: Statistics) -> Callable[[Tensor], Tensor] | None:
    """Function that computes a transform (array or dictionary) on a plain image [channel, *spatial]; None if none is known."""
    known = {
        NormalizeIntensity: _normalize,
        ScaleIntensity: _scale,
        ScaleIntensityRangePercentiles: _scale_percentiles,
        ClipIntensityPercentiles: _clip_percentiles,
    }
    array = _array_twin(step)
    compute = known.get(type(array))
    if compute is None:
        return None
    return lambda image: compute(array, image, _keeper(statistics))


def _array_twin(step: Any) -> Any:
    """The array transform that does a dictionary transform's work; any other step is returned as it is."""
    twins = (NormalizeIntensityd, ScaleIntensityd, ScaleIntensityRangePercentilesd, ClipIntensityPercentilesd)
    return step if type(step) not in twins else getattr(step, "normalizer", None) or step.scaler


def _keeper(statistics: Statistics) -> Statistic:
    return torch.Tensor.detach if statistics == "freeze" else lambda value: value


def _parts(image: Tensor, channel_wise: bool) -> Sequence[Tensor]:
    return image.unbind(0) if channel_wise else (image,)


def _joined(parts: list[Tensor], channel_wise: bool, dtype: Any) -> Tensor:
    result = torch.stack(parts) if channel_wise else parts[0]
    return result.to(_torch_type(dtype)) if dtype is not None else result


def _torch_type(dtype: Any) -> torch.dtype:
    return dtype if isinstance(dtype, torch.dtype) else torch.from_numpy(np.zeros(0, dtype)).dtype


def _real(image: Tensor) -> Tensor:
    return image if image.is_floating_point() else image.float()


def _normalize(step: NormalizeIntensity, image: Tensor, keep: Statistic) -> Tensor:
    """(x - mean) / standard deviation, over the voxels that are not zero where the transform says so."""
    parts = [
        _normalized(part, sub, div, step.nonzero, keep)
        for part, sub, div in zip(
            _parts(image.float(), step.channel_wise),
            _given(step.subtrahend, step.channel_wise, len(image)),
            _given(step.divisor, step.channel_wise, len(image)),
            strict=True,
        )
    ]
    return _joined(parts, step.channel_wise, step.dtype or image.dtype)


def _given(values: Any, channel_wise: bool, channels: int) -> Iterator[Any]:
    """The transform's constant for each part; None for the image's own statistic."""
    if not channel_wise:
        return iter([values])
    return iter([None] * channels if values is None else values)


def _normalized(part: Tensor, sub: Any, div: Any, nonzero: bool, keep: Statistic) -> Tensor:
    """Normalised parts; with nonzero, voxels of zero stay zero and get no gradient, as any change of them is a jump."""
    inside = part != 0 if nonzero else torch.ones_like(part, dtype=torch.bool)
    if not bool(inside.any()):
        return part * 0
    chosen = part[inside] if nonzero else part
    mean = keep(chosen.mean()) if sub is None else _constant(sub, part)
    spread = keep(_deviation(chosen)) if div is None else _constant(div, part)
    spread = torch.where(spread == 0, torch.ones_like(spread), spread)
    return torch.where(inside, (part - mean) / spread, 0)


def _constant(value: Any, like: Tensor) -> Tensor:
    value = value.detach() if isinstance(value, Tensor) else np.asarray(value)
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)


def _deviation(values: Tensor) -> Tensor:
    """Population standard deviation; a constant (no gradient) for a constant image, where it has no derivative."""
    values = values.detach() if bool(values.detach().min() == values.detach().max()) else values
    return values.std(unbiased=False)


def _scale(step: ScaleIntensity, image: Tensor, keep: Statistic) -> Tensor:
    """From [min, max] of the image to [minv, maxv]."""
    dtype = step.dtype or image.dtype
    if step.minv is None and step.maxv is None:
        return _joined([image * (1 + step.factor) if step.factor is not None else image], False, dtype)
    image = image if step.dtype is None else image.to(_torch_type(step.dtype))
    parts = [_rescaled(part, step.minv, step.maxv, keep) for part in _parts(image, step.channel_wise)]
    return _joined(parts, step.channel_wise, dtype)


def _rescaled(part: Tensor, low: float | None, high: float | None, keep: Statistic) -> Tensor:
    smallest, largest = keep(part.amin()), keep(part.amax())
    if bool(smallest.detach() == largest.detach()):
        return part * low if low is not None else part
    share = (part - smallest) / (largest - smallest)
    return share if low is None or high is None else share * (high - low) + low


def _scale_percentiles(step: ScaleIntensityRangePercentiles, image: Tensor, keep: Statistic) -> Tensor:
    """From two percentiles of the image to [b_min, b_max]."""
    low, high = step.b_min, step.b_max
    if step.relative:
        low, high = ((step.b_max - step.b_min) * share / 100.0 + step.b_min for share in (step.lower, step.upper))
    parts = []
    for part in _parts(_real(image), step.channel_wise):
        below, above = (keep(percentile(part, share)) for share in (step.lower, step.upper))
        if bool(below.detach() == above.detach()):
            scaled = part - below if low is None else part - below + low
        else:
            scaled = (part - below) / (above - below)
            scaled = scaled * (high - low) + low if low is not None and high is not None else scaled
            scaled = scaled.clamp(low, high) if step.clip else scaled
        parts.append(scaled)
    return _joined(parts, step.channel_wise, step.dtype or image.dtype)


def _clip_percentiles(step: ClipIntensityPercentiles, image: Tensor, keep: Statistic) -> Tensor:
    """Clipped to two percentiles of the image, or softly by softplus."""
    parts = []
    for part in _parts(_real(image), step.channel_wise):
        below, above = (None if share is None else keep(percentile(part, share)) for share in (step.lower, step.upper))
        if step.sharpness_factor is None:
            clipped = part if below is None else torch.maximum(part, below)
            clipped = clipped if above is None else torch.minimum(clipped, above)
        else:
            sharp = step.sharpness_factor
            clipped = part if below is None else part + F.softplus(-sharp * (part - below)) / sharp
            clipped = clipped if above is None else clipped - F.softplus(sharp * (part - above)) / sharp
        parts.append(clipped)
    return _joined(parts, step.channel_wise, image.dtype)


def percentile(values: Tensor, share: float) -> Tensor:
    """The percentile of all values by linear interpolation, as MONAI takes it, of any number of values.

    Where several voxels hold the value, as in scans of whole numbers, each of them has an equal part in its derivative.
    """
    flat = values.flatten()
    kind = np.float32 if flat.numel() <= LARGEST_QUANTILE and flat.dtype != torch.float64 else np.float64
    place = float(kind(share / 100.0) * kind(flat.numel() - 1))  # rounded as torch.quantile rounds, or numpy
    below, above = int(np.floor(place)), int(np.ceil(place))
    plain = flat.detach()
    ordered = np.partition(plain.cpu().numpy(), sorted({below, above}))
    values_there = [float(ordered[index]) for index in (below, above)]
    holders = ((plain == values_there[0]) | (plain == values_there[1])).nonzero()[:, 0]
    held = flat.index_select(0, holders)  # one gather, so that the backward pass makes one image of zeros and no second
    first, second = (held[held.detach() == value].mean() for value in values_there)
    return first + (place - below) * (second - first)
