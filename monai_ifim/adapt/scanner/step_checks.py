"""Checks of one preprocessing step: its output equals MONAI's, and its gradient is correct."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_ifim.core import IFIMError
from monai_ifim.core.operator.rows import all_finite
from monai_ifim.display.numbers import percent
from monai_ifim.io.errors import innermost

CURE = "choose space='native' (--space native), which needs no derivative of the preprocessing"
EQUALITY = 1e-4  # of the range of an output, by which two ways to compute it may differ
SAMPLE = 1_050_000  # voxels: MONAI does some things otherwise above a million
SMALL_SAMPLE = 2**17  # for what does not depend on that
STEPS = (1e-2, 1e-3, 1e-4)  # of a voxel's value, for difference quotients
STEADY = 0.1  # share by which the quotients to both sides may differ where there is neither kink nor leap
FAR, NEAR = 1e-2, 2.5e-3  # of an image's largest value: two small numbers in the place of zero
LEAP = 0.5  # share of the farther one's effect that the nearer one has where there is a leap; a quarter where there is none
SMALLEST = 1e-4  # of an output: less is rounding
LARGEST_PART = 0.02  # of a gradient that may be missing: half precision loses a thousandth


def differ(ours: Tensor, theirs: Tensor) -> bool:
    """True if two outputs differ by more than rounding; NaN differs from everything."""
    if ours.shape != theirs.shape:
        return True
    if ours.numel() == 0:
        return False
    ours, theirs = (values.detach().as_subclass(Tensor) for values in (ours, theirs))
    smallest, largest = (float(value) for value in torch.aminmax(theirs.float()))
    rounding = 16 * torch.finfo(torch.float32).eps * max(abs(smallest), abs(largest))
    return not float((ours.float() - theirs.float()).abs_().max()) <= EQUALITY * (largest - smallest) + rounding


def sample_of(image: MetaTensor, run: Callable[[MetaTensor], MetaTensor], voxels: int = SAMPLE) -> MetaTensor:
    """The middle of an image [channel, *spatial], small enough for repeated runs; the whole image if `run` gives no varying
    output for the middle."""
    side = 1
    while np.prod([min(size, side) for size in image.shape[1:]]) < min(voxels, image[0].numel()):
        side += 1
    starts = [max(0, (size - side) // 2) for size in image.shape[1:]]
    middle: MetaTensor = image.detach()[(slice(None), *(slice(start, start + side) for start in starts))]
    try:
        with torch.no_grad():
            output = run(middle.clone())
        found = output.numel() > 0 and bool(output.min() < output.max())
    except Exception:  # it wants a part of the image that is not in the middle, or the whole of it
        found = False
    return middle if found else image.detach()


def check_derivative(name: str, step: Callable[[MetaTensor], MetaTensor], image: MetaTensor) -> None:
    """Raise IFIMError where a step has no backward pass, or where a part of its gradient is cut, as by statistics that go through
    `.item()` or numpy.

    The image is made brighter and steeper, which changes every statistic of it, zeros staying zeros. What the gradient says of
    that is compared with difference quotients, at the voxels where these are steady.
    """
    missing, sample = 0.0, sample_of(image, step)
    for size in STEPS:
        try:
            missing = _missing(step, sample, size)
        except RuntimeError as error:
            raise IFIMError(f"{name} in the preprocessing has no backward pass ({innermost(error)}): {CURE}.") from error
        if not missing > LARGEST_PART:
            return
    raise IFIMError(
        f"{name} in the preprocessing has an incomplete gradient ({percent(missing)} of a change is missing), "
        "as where statistics of the image are detached: treat them as constants with statistics='freeze' "
        f"(--statistics freeze), or {CURE}."
    )


def is_discontinuous_at_zeros(run: Callable[[MetaTensor], MetaTensor], image: MetaTensor) -> bool:
    """True if `run` is discontinuous where zeros become small numbers, as normalising or cropping to nonzero voxels is.

    Tried on the middle of the image, with zeros around it and with zeros scattered in it. At such voxels there is no derivative.
    """
    sample = sample_of(image, run, SMALL_SAMPLE)
    around = torch.ones(sample.shape[1:], dtype=torch.bool)
    around[tuple(slice(size // 4, size - size // 4) for size in around.shape)] = False
    numbers = torch.rand(sample.shape[1:], generator=torch.Generator().manual_seed(0))
    return any(_jumps(run, sample, zeros * (1 + numbers)) for zeros in (around, numbers < 1 / 2))


def _jumps(run: Callable[[MetaTensor], MetaTensor], image: MetaTensor, lifted: Tensor) -> bool:
    """The same for the zeros of an image where `lifted` [*spatial] is not zero: they become `lifted` times a small number and,
    for comparison, a smaller one. The values of `lifted` differ, so that a step that subtracts the smallest value sees them."""
    lifted = lifted.to(image)
    plain = image.as_subclass(Tensor)
    largest = plain.abs().max() if bool(plain.any()) else torch.ones_like(plain.max())
    filled = torch.where(plain == 0, largest / 2, plain)
    outputs = []
    with torch.no_grad():
        for share in (0.0, FAR, NEAR):
            moved = image.clone()
            moved[:] = torch.where(lifted > 0, share * largest * lifted, filled)
            outputs.append(run(moved).as_subclass(Tensor).double())
    if len({output.shape for output in outputs}) > 1:
        return True
    far, near = (float((output - outputs[0]).abs().sum()) for output in outputs[1:])
    return far > SMALLEST * float(outputs[0].abs().sum()) and near > LEAP * far


def _missing(step: Callable[[MetaTensor], MetaTensor], image: MetaTensor, size: float) -> float:
    """Relative difference of gradient and difference quotients; 0 if they cannot be compared."""
    leaf = image.detach().clone().requires_grad_(True)
    output = step(leaf * 1).as_subclass(Tensor)
    values = image.detach().as_subclass(Tensor)
    direction = torch.where(values == 0, 0, values + values.std())
    with torch.no_grad():
        upward, downward = (step(image.detach() + sign * size * direction).as_subclass(Tensor) for sign in (1, -1))
    if not upward.shape == downward.shape == output.shape:  # a grid that follows from the values, such as a foreground box
        return 0.0
    moved = (upward != downward).flatten().nonzero()[:, 0]  # an output may be mostly padding
    above, centre, below = (each.detach().flatten()[moved].float() for each in (upward, output, downward))
    forward, backward = (above - centre) / size, (centre - below) / size
    spread = centre.std()
    steady = (forward - backward).abs() <= STEADY * (forward.abs() + backward.abs()) + STEADY**2 * spread
    weights = torch.where(steady, (centre - centre.mean()) / spread + 1, 0)
    if moved.numel() == 0 or not all_finite(weights):  # a constant image, or one with NaN
        return 0.0
    placed = torch.zeros_like(output).flatten().index_copy(0, moved, weights.to(output)).reshape(output.shape)
    (gradient,) = torch.autograd.grad(output, leaf, placed)
    shares = gradient.as_subclass(Tensor) * direction
    scale = max(_sum(shares.abs()), _sum(weights.abs(), forward.abs()))
    return abs(_sum(shares) - _sum(weights, (forward + backward) / 2)) / scale if scale > 0 else 0.0


def _sum(*factors: Tensor) -> float:
    product = factors[0] if len(factors) == 1 else factors[0] * factors[1]
    return float(product.sum(dtype=torch.float64))
