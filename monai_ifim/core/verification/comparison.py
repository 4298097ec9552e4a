"""Comparison of what Jacobian products say of a direction with differences of the network's own output.

Derivatives can be wrong without a sign of it: `.data` or `.detach()` cuts a gradient, a hook or a custom backward pass replaces
it, or the network is random. For a direction d of the image, the factor gives A^T d = S^T J d, and forward passes alone give
the central difference S^T (f(x + h d) - f(x - h d)) / (2 h).

d is a random image plus a multiple of the leading eigenvector u_1, so that both have the same expected share of |A^T d|: two
passes check J as a whole and the component reported. The third pass repeats the image itself. Only where the two disagree are
more passes taken: other directions, then float64 and other steps, before a disagreement is believed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.operator.moved_image import MovedImage

Outcome = Literal["agrees", "disagrees", "inconclusive"]

TOLERANCE = 0.10  # largest deviation that agrees
PER_EPS = 64.0  # added to the tolerance for rows in half precision, in units of their eps
DOUBTFUL = 0.05  # deviation from which on more is tried; rounding and curvature usually leave less
NOISE = 2.0  # rounding error of an output, in units of eps times the size of what is added up to it
SINGLE = float(torch.finfo(torch.float32).eps)
UNSETTLED = "rounding errors are as large as the change of the output, or difference quotients do not converge"
LEAST_SIGNAL = 10.0  # change of the output over its rounding error below which a difference says nothing
LARGEST_STEP = 0.25  # root mean square of the largest displacement over that of the image
PLATEAU = 0.05  # relative difference of two quotients that have converged, at steps h and 2 h
STEPS = (1.0, 0.5, 0.25, 0.125, 1 / 16, 1 / 32, 2.0, 4.0, 8.0, 16.0)  # of the search, in units of the first
REPEATED = 10.0  # largest difference of two answers to one image, in units of the square root of eps
CHANCE = 0.1  # the same for two equal calls, in units of the change along the step


@dataclass(frozen=True)
class Expectation:
    """A direction of an image and what Jacobian products say of it.

    displacement: change of the image by one step, [1, channel, *spatial], M d with a metric M. change: A^T d for the heaviest
    columns, [columns] float64. rounding: what a relative rounding error of the image's elements adds to A^T d.
    """

    displacement: Tensor
    change: Tensor
    rounding: float


@dataclass(frozen=True)
class Verification:
    """Outcome for one image.

    deviation: |A^T d - difference quotient| over the larger of the two, the root mean square over the directions tried; None if
    no step gave one. step: root mean square of the change of the image, in its unit. repeated: largest difference between two
    answers to the image, over their size. passes: forward passes. reason: why an outcome is "inconclusive", or likely causes
    of a disagreement.
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
    used, trial = [own, moved], _Trial(moved, first)
    repeated, deviation, quotient = trial.run(own)
    alone = moved.together == 1
    if not alone and (repeated > REPEATED * row_eps**0.5 or not _within([deviation], DOUBTFUL)):
        moved.together = own.together = 1  # the image's neighbours in a pass may have an influence
        repeated, deviation, quotient = trial.run(own)
    if repeated > REPEATED * row_eps**0.5:
        raise _another_answer(changes())
    deviations = [deviation]
    if not _within(deviations, DOUBTFUL):
        trial.check_chance(quotient, changes)
        trials = [trial] + [_Trial(moved, expectation()) for expectation in expectations[1:]]
        deviations += [one.deviation(one.quotient(one.step), one.step) for one in trials[1:]]
        if not _within(deviations, tolerance):
            deviations, wide = _converged(trials, own)
            used.append(wide)
    passes = sum(one.passes for one in {id(one): one for one in used}.values())
    length = trial.step * _root_mean_square(first.displacement)
    known = [deviation for deviation in deviations if deviation is not None]
    if len(known) < len(deviations):
        return Verification("inconclusive", None, tolerance, length, repeated, passes, UNSETTLED)
    total = _total(known)
    return Verification("agrees" if total <= tolerance else "disagrees", total, tolerance, length, repeated, passes)


class _Trial:
    """One direction d of the image, with the step h at which rounding errors are small beside the change of the output."""

    def __init__(self, moved: MovedImage, expectation: Expectation) -> None:
        self.moved, self.expectation = moved, expectation
        self.size = float(expectation.change.norm())
        self.noise = NOISE * moved.eps * sqrt(self._sum_rounding() ** 2 + expectation.rounding**2)
        lengths = _root_mean_square(moved.image), _root_mean_square(expectation.displacement)
        unit = lengths[0] / lengths[1] if min(lengths) > 0 else 1.0  # step that is as large as the image
        signal = 40.0 if moved.eps > 1e-9 else 1e3  # where errors by rounding and by kinks or curvature balance
        wanted = signal * self.noise / self.size if self.size > 0 else 1e3 * moved.eps * unit
        self.step = min(LARGEST_STEP * unit, wanted) if wanted > 0 else LARGEST_STEP * unit

    def run(self, own: MovedImage) -> tuple[float, float | None, Tensor]:
        """(difference of the repeated answer, deviation, quotient) at the first step, by three passes."""
        outputs = self.moved.at(self.expectation.displacement, [0.0, self.step, -self.step])
        still = outputs[:1] if self.moved is own else own.at(self.expectation.displacement, [0.0])
        quotient = self.quotient_of(outputs[1:], self.step)
        return _repeated(still, own.output), self.deviation(quotient, self.step), quotient

    def quotient(self, step: float) -> Tensor:
        """Central difference for A^T d, [columns] float64, by two passes."""
        return self.quotient_of(self.moved.at(self.expectation.displacement, [step, -step]), step)

    def quotient_of(self, outputs: Tensor, step: float) -> Tensor:
        """The same from the outputs [2, *output] at x + h d and x - h d."""
        return self._on_columns((outputs[:1] - outputs[1:]) / (2 * step))

    def deviation(self, quotient: Tensor, step: float) -> float | None:
        """|A^T d - quotient| over the larger of the two; None where rounding errors may be as large."""
        size = max(self.size, float(quotient.norm()))
        if size * step <= LEAST_SIGNAL * self.noise:
            return 0.0 if self.size == 0.0 else None
        return float((self.expectation.change - quotient).norm()) / size

    def converged(self) -> float | None:
        """Deviation of the quotient at the smallest of two steps h, 2 h that agree, three where it disagrees; None if none do.

        Kinks of a piecewise linear network scatter the quotients of long steps, and two of them may agree by chance.
        """
        found: dict[float, Tensor] = {}
        for share in STEPS:
            found[share] = self.quotient(share * self.step)
            for smaller in sorted(found):
                if not self._agree(found, smaller):
                    continue
                deviation = self.deviation(found[smaller], smaller * self.step)
                if deviation is not None and (deviation <= TOLERANCE or self._agree(found, 2 * smaller)):
                    return deviation
        return None

    def check_chance(self, quotient: Tensor, changes: Callable[[], Sequence[str]]) -> None:
        """Raise NetworkError if an equal pair of passes gives another quotient."""
        difference = float((self.quotient(self.step) - quotient).norm())
        size = max(self.size, float(quotient.norm()))
        if difference > CHANCE * size and difference * self.step > LEAST_SIGNAL * self.noise:
            raise _another_answer(changes())

    def _agree(self, found: Mapping[float, Tensor], share: float) -> bool:
        """True if the quotients at this share of the first step and at its double have converged."""
        if share not in found or 2 * share not in found:
            return False
        nearer, further = found[share], found[2 * share]
        size = max(self.size, float(nearer.norm()), float(further.norm()))
        enough = size * share * self.step > LEAST_SIGNAL * self.noise
        return enough and float((nearer - further).norm()) <= PLATEAU * size

    def _sum_rounding(self) -> float:
        """|S^T w| for rounding errors w of the output in units of eps, with random signs.

        A logit is a sum of terms as large as the largest one; an output that the head reads as a probability is rounded by its
        own size.
        """
        output = as_float64(self.moved.output)
        read = self.moved.head.logits(self.moved.output) is self.moved.output
        sizes = output.abs().amax().expand_as(output) if read else output.abs()
        signs = torch.randint(0, 2, output.shape, generator=torch.Generator().manual_seed(0)).to(sizes) * 2 - 1
        return float(self._on_columns(signs * sizes).norm())

    def _on_columns(self, outputs: Tensor) -> Tensor:
        """S^T w of the columns compared."""
        return self.moved.root.adjoint_product(outputs)[0, : self.expectation.change.numel()].cpu()


def _in_full_precision(own: MovedImage, expectation: Expectation, row_eps: float) -> MovedImage:
    """The network in float32 where its products ran in half precision, whose rounding would drown a difference."""
    if row_eps <= SINGLE:
        return own
    full = own.in_dtype(torch.float32 if own.image.dtype.itemsize < 4 else own.image.dtype)
    return full if _runs(full, expectation) else own


def _converged(trials: Sequence[_Trial], own: MovedImage) -> tuple[list[float | None], MovedImage]:
    """Deviations from converged quotients, in float64 where the network runs in it, and the network that gave them."""
    wide = own.in_dtype(torch.float64)
    if own.image.dtype == torch.float64 or not _runs(wide, trials[0].expectation):
        wide = trials[0].moved
    return [_Trial(wide, trial.expectation).converged() for trial in trials], wide


def _runs(moved: MovedImage, expectation: Expectation) -> bool:
    """True if a pass in this precision succeeds: scripts, callables and fixed casts inside a network may not allow it."""
    try:
        return bool(moved.at(expectation.displacement, [0.0]).isfinite().all())
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return False


def _repeated(still: Tensor, output: Tensor) -> float:
    """Largest difference between two outputs for one image, over the larger of one and their size."""
    first = as_float64(output)
    return float((still.to(first) - first).abs().max()) / max(1.0, float(first.abs().max()))


def _another_answer(changed: Sequence[str]) -> NetworkError:
    if changed:
        return NetworkError(
            f"the network changes {', '.join(changed[:3])} when it answers, and its answer to the same image with it: it has no "
            "single Fisher information. Make it answer without learning: freeze these values in eval mode."
        )
    return NetworkError(
        "the network gives the same image another answer each time, or another one alone than among copies of itself: it is "
        "random, or depends on the rest of the batch. Look for dropout(training=True) and noise in forward(), and for layers "
        "that normalise over the batch."
    )


def _within(deviations: Sequence[float | None], limit: float) -> bool:
    known = [deviation for deviation in deviations if deviation is not None]
    return len(known) == len(deviations) and _total(known) <= limit


def _total(deviations: Sequence[float]) -> float:
    """Root mean square."""
    return sqrt(sum(deviation**2 for deviation in deviations) / len(deviations))


def _root_mean_square(values: Tensor) -> float:
    return float(as_float64(values).square().mean().sqrt())
