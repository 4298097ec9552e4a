"""The clock of a batch of cases that is computed: ends it at its limit of time, and tells how far it is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from monai_ifim.core.solvers.watch import IterationState, Watch
from monai_ifim.display.numbers import duration
from monai_ifim.io.limits import Limits

Activity = Callable[[str], None]

QUIET_SECONDS = 3.0  # what takes no longer is not told of
MARGIN = 1.5  # products that are still to come may take longer than those before


def unheard(_: str) -> None:
    """An `Activity` that tells nobody."""


class CaseClock:
    """limits: of one case; a batch may take as long as its images together. names: of their files. activity: called with a text
    that says how far an iteration is, once it takes longer than QUIET_SECONDS, and with "" at the end."""

    def __init__(self, limits: Limits, names: Sequence[str], activity: Activity = unheard) -> None:
        self._limits, self._names, self._activity = limits, ", ".join(names), activity
        self._seconds = limits.seconds * len(names) if limits.seconds else math.inf
        self._began, self._products = time.monotonic(), 0

    @property
    def watch(self) -> Watch:
        """For the iteration of the matrix-free method: it is ended in time to write its best pairs."""
        return Watch(self._tell, self._stop)

    def count(self, done: int, expected: int | None) -> None:
        """A product with the Jacobian was made; raises LimitError once the batch has taken longer than it may."""
        self._products = done
        if self._elapsed > self._seconds:
            raise self._limits.too_slow(f"{self._names}: computing (after {done} products)")

    def silence(self) -> None:
        """The batch is done."""
        self._activity("")

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    @property
    def _pace(self) -> float:
        """Seconds of a product."""
        return self._elapsed / max(1, self._products)

    def _stop(self, following: int) -> bool:
        return self._elapsed + MARGIN * self._pace * following > self._seconds

    def _tell(self, state: IterationState) -> None:
        if self._elapsed < QUIET_SECONDS:
            return
        left = f", about {duration(self._pace * state.left)} left" if state.left else ""
        self._activity(f"{self._names}: {state.products} products{left}; {state}")
