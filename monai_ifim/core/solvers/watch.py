"""What follows an iteration: it is told how far the pairs are, and may end it early."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

LOOK_BACK = 6  # last tests for convergence that the decay of the residual is fitted to


@dataclass(frozen=True)
class IterationState:
    """How far an iteration is, of the image of the batch that is least so.

    products: Jacobian products made. most: products after which it ends in any case. wanted: leading pairs asked for, of which
    good are within the tolerance. residual: the largest |F u - l u| / l of them, infinite where there are fewer. left: products
    that it will take by the decay of the residual so far; None where that does not tell.
    """

    products: int
    most: int
    wanted: int
    good: int
    residual: float
    tolerance: float
    left: int | None = None

    def __str__(self) -> str:
        residual = "not known yet" if math.isinf(self.residual) else f"{self.residual:.2g}"
        left = "" if self.left is None else f"about {self.left} to go, "
        return (
            f"{self.good} of {self.wanted} pair(s), largest residual {residual} (tolerance {self.tolerance:g}), {left}"
            f"at most {self.most}"
        )


@dataclass(frozen=True)
class Watch:
    """report: called with the state after each test for convergence. stop: called before each step with the number of products
    that would still follow if the iteration ended there; True ends it with the best pairs so far."""

    report: Callable[[IterationState], None] = lambda state: None
    stop: Callable[[int], bool] = lambda following: False


def steps_left(history: list[tuple[int, float]], tolerance: float) -> int | None:
    """Steps until the residual reaches the tolerance if it goes on to fall as it did, by a log-linear fit; None if it does not.

    history: (step, residual) of each test so far, in their order.

    >>> steps_left([(2, 1.0), (4, 0.1), (6, 0.01)], 1e-4)
    4
    """
    known = [(step, math.log(residual)) for step, residual in history if 0.0 < residual < math.inf][-LOOK_BACK:]
    if len(known) < 2 or known[-1][0] != history[-1][0]:
        return None
    middle = sum(step for step, _ in known) / len(known)
    mean = sum(value for _, value in known) / len(known)
    slope = sum((step - middle) * (value - mean) for step, value in known) / sum((step - middle) ** 2 for step, _ in known)
    if slope >= 0.0:
        return None
    reached = middle + (math.log(tolerance) - mean) / slope
    return max(0, math.ceil(reached - known[-1][0] - 1e-9))
