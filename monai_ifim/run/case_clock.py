"""The clock of a batch of cases that is computed: ends it at its limit of time, and tells how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from monai_ifim.core.solvers.watch import IterationState, Watch
from monai_ifim.display.numbers import count, counted, duration
from monai_ifim.io.limits import Limits

QUIET_SECONDS = 3.0  # what takes no longer is not told of
MARGIN = 1.5  # products that are still to come may take longer than those before


@dataclass(frozen=True)
class Stage:
    """How far a computation is. names: of the files of its images. products: with the Jacobian, made so far. expected: how many
    there will be, None if that is not known. left: seconds that the others will take at the pace so far. iteration: of the
    matrix-free method, how far its pairs are."""

    names: str
    products: int
    expected: int | None = None
    left: float | None = None
    iteration: IterationState | None = None

    def __str__(self) -> str:
        made = counted(self.products, "product") if self.expected is None else f"{self.share} products"
        left = "" if self.left is None else f", about {duration(self.left)} left"
        return f"{self.names}: {made}{left}{'' if self.iteration is None else f'; {self.iteration}'}"

    @property
    def share(self) -> str:
        """Products made of those expected: "12 of 400"."""
        return f"{count(self.products)} of {count(self.expected)}"


def together(stages: Sequence[Stage]) -> Stage | None:
    """Several computations as one: products added up, and the time left of the one that takes longest; None of none."""
    if len(stages) < 2:
        return stages[0] if stages else None
    expected = [stage.expected for stage in stages if stage.expected is not None]
    left = [stage.left for stage in stages if stage.left is not None]
    return Stage(
        counted(len(stages), "computation"),
        sum(stage.products for stage in stages),
        sum(expected) if len(expected) == len(stages) else None,
        max(left) if len(left) == len(stages) else None,
    )


Activity = Callable[[Stage | None], None]  # called with how far a long computation is, and with None once it is done


def unheard(_: Stage | None) -> None:
    """An `Activity` that tells nobody."""


class CaseClock:
    """limits: of one case; a batch may take as long as its images together. names: of their files. activity: called after each
    product and each test for convergence, once the batch takes longer than QUIET_SECONDS, and with None at the end."""

    def __init__(self, limits: Limits, names: Sequence[str], activity: Activity = unheard) -> None:
        self._limits, self._names, self._activity = limits, ", ".join(names), activity
        self._seconds = limits.seconds * len(names) if limits.seconds else math.inf
        self._began, self._products, self._before = time.monotonic(), 0, 0
        self._iteration: IterationState | None = None

    @property
    def watch(self) -> Watch:
        """For the iteration of the matrix-free method: it is ended in time to write its best pairs."""
        return Watch(self._tell, self._stop)

    def count(self, done: int, expected: int | None) -> None:
        """A product with the Jacobian was made; raises LimitError once the batch has taken longer than it may.

        done, expected: of the images that share passes; a batch in several parts counts anew for each.
        """
        if done <= self._products:
            self._before += self._products
        self._products = done
        if self._elapsed > self._seconds:
            raise self._limits.too_slow(f"{self._names}: computing (after {self._made} products)")
        self._say(expected)

    def silence(self) -> None:
        """The batch is done."""
        self._activity(None)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    @property
    def _made(self) -> int:
        return self._before + self._products

    @property
    def _pace(self) -> float:
        """Seconds of a product."""
        return self._elapsed / max(1, self._made)

    def _stop(self, following: int) -> bool:
        return self._elapsed + MARGIN * self._pace * following > self._seconds

    def _tell(self, state: IterationState) -> None:
        self._iteration = state
        self._say(None if state.left is None else state.products + state.left)

    def _say(self, expected: int | None) -> None:
        """Tell how far the batch is. Of a batch in parts nobody knows how many parts, and so products, are to come."""
        if self._elapsed < QUIET_SECONDS:
            return
        known = expected if self._before == 0 else None
        left = None if known is None else self._pace * max(0, known - self._made)
        self._activity(Stage(self._names, self._made, known, left, self._iteration))
