"""Comparison of what Jacobian products say of a direction with differences of the network's own output.

Derivatives can be wrong without a sign of it: `.data` or `.detach()` cuts a gradient, a hook or a custom backward pass replaces
it, or the network is random. For a direction d of the image, the factor gives A^T d = S^T J d, and forward passes alone give
the central difference S^T (f(x + h d) - f(x - h d)) / (2 h).

d is a random image plus a multiple of the leading eigenvector u_1, so that both have the same expected share of |A^T d|: two
passes check J as a whole and the component reported, and the mean of their outputs repeats the answer to the image itself. Only
where something disagrees are more passes taken: other directions, then float64 and other steps, before that is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from monai_ifim.core.operator.moved_image import MovedImage
from monai_ifim.core.verification.again import repeated_at
from monai_ifim.core.verification.trial import (
    TOLERANCE,
    Expectation,
    Trial,
    another_answer,
    repeated_difference,
    root_mean_square,
)

Outcome = Literal["agrees", "disagrees", "inconclusive"]

PER_EPS = 64.0  # added to the tolerance for rows in half precision, in units of their eps
DOUBTFUL = 0.05  # deviation from which on more is tried; rounding and curvature usually leave less
SINGLE = float(torch.finfo(torch.float32).eps)
BESIDE = 1e-3  # distance of the image beside a kink, as a share of its root mean square
FURTHER_BESIDE = 0.02  # the same where the passes cannot run in float64
KINK = (
    "compared beside the image: the image itself lies on a kink of the network or within rounding of one (rectifiers at zero, "
    "ties of max pooling in a constant area), where its derivative depends on the direction"
)
INACCURATE = "The products are inaccurate in this precision: pass precision='float64'."
UNSETTLED = "rounding errors are as large as the change of the output, or difference quotients do not converge"
EQUAL = 100.0  # largest difference of two equal passes, in units of eps; more than what parallel sums leave open
REPEATED = 10.0  # largest difference of two answers to one image, in units of the square root of eps


@dataclass(frozen=True)
class Verification:
    """Outcome for one image.

    deviation: |A^T d - difference quotient| over the larger of the two, the root mean square over the directions tried; None if
    no step gave one. step: root mean square of the change of the image, in its unit. repeated: largest difference between two
    answers to the image, over their size. passes: forward passes. reason: why an outcome is "inconclusive", likely causes of a
    disagreement, or what is special about an agreement.
    """

    outcome: Outcome
    deviation: float | None
    tolerance: float
    step: float | None
    repeated: float
    passes: int
    reason: str = ""

    def describe(self) -> dict[str, Any]:
        """Plain data."""
        return dict(vars(self))


def verify_image(
    own: MovedImage,
    expectations: Sequence[Callable[[], Expectation]],
    row_eps: float,
    changes: Callable[[], Sequence[str]] = tuple,
) -> Verification:
    """Verify the decomposition of one image.

    own: the network in the precision of the decomposition. expectations: the first for the direction described above, the
    others for random ones, used where the first is doubtful. row_eps: coarsest machine epsilon of the products. changes: names
    of what passes have changed in the network so far.
    Raises NetworkError if the network gives the image two different answers.
    """
    first = expectations[0]()
    moved = _in_full_precision(own, first, row_eps)
    tolerance = TOLERANCE + (PER_EPS * row_eps if row_eps > SINGLE else 0.0)
    used, trial = [own, moved], Trial(moved, first)
    repeated, deviation, quotient = trial.run(own)
    alone, most = moved.together == 1, REPEATED * row_eps**0.5
    if not alone and (not repeated <= most or not _within([deviation], DOUBTFUL)):
        moved.together = own.together = 1  # the image's neighbours in a pass may have an influence
        repeated, deviation, quotient = trial.run(own)
    if not repeated <= most:
        repeated = repeated_difference(own.at(first.displacement, [0.0]), own.output)
        if not repeated <= most:
            raise another_answer(changes())
    elif repeated > EQUAL * row_eps and _passes_differ(own, first, EQUAL * row_eps):  # noise that was small by chance
        raise another_answer(changes())
    deviations, reason = [deviation], ""
    if not _within(deviations, DOUBTFUL):
        trial.check_chance(quotient, changes)
        trials = [trial] + [Trial(moved, expectation()) for expectation in expectations[1:]]
        deviations += [one.deviation(one.quotient(one.step), one.step) for one in trials[1:]]
        if not _within(deviations, tolerance):
            wide = _widest(own, moved, first)
            used.append(wide)
            tolerance += _for_inner_precision(own, wide, row_eps)
            deviations, reason = _second_look(wide, trials, tolerance)
    passes = sum(one.passes for one in {id(one): one for one in used}.values())
    length = trial.step * root_mean_square(first.displacement)
    known = [deviation for deviation in deviations if deviation is not None]
    if len(known) < len(deviations):
        return Verification("inconclusive", None, tolerance, length, repeated, passes, UNSETTLED)
    total = _total(known)
    return Verification("agrees" if total <= tolerance else "disagrees", total, tolerance, length, repeated, passes, reason)


def _passes_differ(own: MovedImage, expectation: Expectation, most: float) -> bool:
    """True if two equal passes give the image outputs further apart than `most`, which curvature cannot explain."""
    first, second = (own.at(expectation.displacement, [0.0]) for _ in range(2))
    return not repeated_difference(first, second) <= most


def _for_inner_precision(own: MovedImage, wide: MovedImage, row_eps: float) -> float:
    """What the tolerance grows by where the network itself computes in half precision, as by autocast in its forward().

    From then on the steps of `wide` are those for the rounding errors of the values inside.
    """
    for moved in {id(one): one for one in (own, wide)}.values():
        moved.find_inner_precision()
    return PER_EPS * own.eps if own.eps > max(row_eps, SINGLE) else 0.0


def _second_look(wide: MovedImage, trials: Sequence[Trial], tolerance: float) -> tuple[list[float | None], str]:
    """(deviations from converged quotients, reason), before a disagreement is believed.

    The products are computed again in the widest precision. Where those beside the image agree with quotients there, the image
    lies on a kink, or within rounding of one, which shows in products that vary over a short way. Where they do not vary and
    differ from the first ones, these were inaccurate.
    """
    deviations = [Trial(wide, trial.expectation).converged() for trial in trials]
    if _within(deviations, tolerance):
        return deviations, ""
    displacement, change = trials[0].expectation.displacement, trials[0].expectation.change
    here = repeated_at(wide, displacement, 0.0)
    beside = repeated_at(wide, displacement, BESIDE if wide.eps < SINGLE else FURTHER_BESIDE)
    if here is None or beside is None:
        return deviations, ""
    inaccurate = _relative(here.expectation.change, change[: here.expectation.change.numel()]) > tolerance
    varies = _relative(here.expectation.change, beside.expectation.change) > tolerance / 2
    deviation = beside.converged()
    if _within([deviation], tolerance) and (varies or not inaccurate):
        return [deviation], KINK
    return deviations, INACCURATE if inaccurate else ""


def _relative(first: Tensor, second: Tensor) -> float:
    """Length of the difference over the larger length."""
    size = max(float(first.norm()), float(second.norm()))
    return float((first - second).norm()) / size if size > 0 else 0.0


def _in_full_precision(own: MovedImage, expectation: Expectation, row_eps: float) -> MovedImage:
    """The network in float32 where its products ran in half precision, whose rounding would drown a difference."""
    if row_eps <= SINGLE:
        return own
    full = own.in_dtype(torch.float32 if own.image.dtype.itemsize < 4 else own.image.dtype)
    return full if _runs(full, expectation) else own


def _widest(own: MovedImage, moved: MovedImage, expectation: Expectation) -> MovedImage:
    """The network in float64 where it runs in it, else as it ran so far."""
    wide = own.in_dtype(torch.float64)
    return wide if own.image.dtype != torch.float64 and _runs(wide, expectation) else moved


def _runs(moved: MovedImage, expectation: Expectation) -> bool:
    """True if a pass in this precision succeeds: scripts, callables and fixed casts inside a network may not allow it."""
    try:
        return bool(moved.at(expectation.displacement, [0.0]).isfinite().all())
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False


def _within(deviations: Sequence[float | None], limit: float) -> bool:
    known = [deviation for deviation in deviations if deviation is not None]
    return len(known) == len(deviations) and _total(known) <= limit


def _total(deviations: Sequence[float]) -> float:
    """Root mean square."""
    return sqrt(sum(deviation**2 for deviation in deviations) / len(deviations))
