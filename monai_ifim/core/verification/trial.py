"""One direction of an image: what Jacobian products say of it, and difference quotients of the network's output along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.operator.moved_image import MovedImage

TOLERANCE = 0.10  # largest deviation that agrees
NOISE = 2.0  # rounding error of an output, in units of eps times the size of what is added up to it
DRAWS = 4  # of rounding errors, of whose size this is enough
LEAST_SIGNAL = 10.0  # change of the output over its rounding error below which a difference says nothing
LARGEST_STEP = 0.25  # root mean square of the largest displacement over that of the image
PLATEAU = 0.05  # relative difference of two quotients that have converged, at steps h and 2 h
STEPS = (1.0, 0.5, 0.25, 0.125, 1 / 16, 1 / 32, 2.0, 4.0, 8.0, 16.0)  # of the search, in units of the first
CHANCE = 0.1  # largest difference between the quotients of two equal pairs of passes, relative


@dataclass(frozen=True)
class Expectation:
    """A direction of an image and what Jacobian products say of it.

    displacement: change of the image by one step, [1, channel, *spatial], M d with a metric M. change: A^T d for the heaviest
    columns, [columns] float64. rounding: what a relative rounding error of the image's elements adds to A^T d.
    """

    displacement: Tensor
    change: Tensor
    rounding: float


class Trial:
    """One direction d of the image, with the step h at which rounding errors are small beside the change of the output."""

    def __init__(self, moved: MovedImage, expectation: Expectation) -> None:
        self.moved, self.expectation = moved, expectation
        self.size = float(expectation.change.norm())
        self.noise = NOISE * moved.eps * sqrt(self._sum_rounding() ** 2 + expectation.rounding**2)
        lengths = root_mean_square(moved.image), root_mean_square(expectation.displacement)
        unit = lengths[0] / lengths[1] if min(lengths) > 0 else 1.0  # step that is as large as the image
        signal = 40.0 if moved.eps > 1e-9 else 1e3  # where errors by rounding and by kinks or curvature balance
        wanted = signal * self.noise / self.size if self.size > 0 else 1e3 * moved.eps * unit
        self.step = min(LARGEST_STEP * unit, wanted) if wanted > 0 else LARGEST_STEP * unit

    def run(self, own: MovedImage) -> tuple[float, float | None, Tensor]:
        """(difference of the repeated answer, deviation, quotient) at the first step.

        The mean of the two outputs is that of the image up to curvature, so it serves as the repeated answer.
        """
        outputs = self.moved.at(self.expectation.displacement, [self.step, -self.step])
        still = outputs.mean(0, keepdim=True) if self.moved is own else own.at(self.expectation.displacement, [0.0])
        quotient = self.quotient_of(outputs, self.step)
        return repeated_difference(still, own.output), self.deviation(quotient, self.step), quotient

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
            raise another_answer(changes())

    def _agree(self, found: Mapping[float, Tensor], share: float) -> bool:
        """True if the quotients at this share of the first step and at its double have converged."""
        if share not in found or 2 * share not in found:
            return False
        nearer, further = found[share], found[2 * share]
        size = max(self.size, float(nearer.norm()), float(further.norm()))
        enough = size * share * self.step > LEAST_SIGNAL * self.noise
        return enough and float((nearer - further).norm()) <= PLATEAU * size

    def _sum_rounding(self) -> float:
        """Root mean square of |S^T w| for independent rounding errors w of the output, in units of eps.

        A logit is a sum of terms as large as the largest one; an output that the head reads as a probability is rounded by its
        own size. Outputs that S does not depend on do not count, such as classes masked with a large negative number.
        """
        root, generator = self.moved.root, torch.Generator().manual_seed(0)
        output = as_float64(self.moved.output).abs()
        output = output.where(root.product(_normal(root.scales, generator)).reshape(output.shape) != 0, 0.0)
        if self.moved.head.logits(self.moved.output) is self.moved.output:
            return float(output.amax()) * float(root.scales[0, : self.expectation.change.numel()].norm())
        drawn = [self._on_columns(_normal(output, generator) * output).square().sum() for _ in range(DRAWS)]
        return sqrt(float(sum(drawn)) / DRAWS)

    def _on_columns(self, outputs: Tensor) -> Tensor:
        """S^T w of the columns compared."""
        return self.moved.root.adjoint_product(outputs)[0, : self.expectation.change.numel()].cpu()


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=torch.float64, device="cpu").to(like)


def repeated_difference(still: Tensor, output: Tensor) -> float:
    """Largest difference between two outputs for one image, over the larger of one and their size."""
    first = as_float64(output)
    return float((still.to(first) - first).abs().max()) / max(1.0, float(first.abs().max()))


def another_answer(changed: Sequence[str]) -> NetworkError:
    """The error for a network that gives one image two answers; changed: names of what its passes change."""
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


def root_mean_square(values: Tensor) -> float:
    """Root mean square of all elements."""
    return float(as_float64(values).square().mean().sqrt())
