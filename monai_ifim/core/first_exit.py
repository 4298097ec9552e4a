"""The first step at which a curve leaves a band around zero, found from few of its values."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Sequence
from itertools import pairwise

GROWTH = 4.0  # largest factor from the longest step inside the band to the next one
CLOSE = 2.0  # factor between two steps within which the curve is not looked at again
FORETOLD = 0.4  # share of the band: how well shorter steps must foretell one that is farther than CLOSE away
NEARER = 1 / 8  # share of the longest step inside the band at which, or nearer, the curve must have been looked at
SMALLEST = 2.0**-10  # share of the first step below which no exit is searched
FARTHEST = 2.0**28  # multiple of the first step beyond which no exit is searched
MOST_STEPS = 48
PLENTY = 8  # values from which on every other step halves the bracket, for curves that no polynomial follows
NODES = 3  # points that a polynomial goes through
SAMPLES = 24  # steps at which a polynomial is looked at between two others

Point = tuple[float, float]


class FirstExit:
    """Search for the largest step up to which |curve| stays within `band`, to the relative `precision`.

    first: the first step, short against those over which the curve bends. The curve is 0 at the step 0 and smooth mostly. A step
    follows from a polynomial through the last values; where one more than CLOSE times the last is not what the polynomial
    foretold, or the polynomial leaves the band on the way, the middle is looked at, so that a short excursion is not jumped over.

    >>> search = FirstExit(first=0.01, band=0.1, precision=0.03)
    >>> while (step := search.next_step()) is not None:
    ...     search.add(step, step + step**2)
    >>> 0.0916 / 1.03 <= search.radius <= 0.0917  # e + e^2 = 0.1 at 0.0916
    True
    """

    def __init__(self, first: float, band: float, precision: float) -> None:
        self._first, self._band, self._precision = first, band, precision
        self._points: list[Point] = []  # by their steps

    def add(self, step: float, value: float) -> None:
        """The curve's value at a step; infinite where it has none."""
        insort(self._points, (step, value))

    @property
    def radius(self) -> float:
        """The longest step found inside; 0 where none is, infinite where no step tried left the band."""
        inside = self._inside()
        if not inside:
            return 0.0
        return inside[-1][0] if len(inside) < len(self._points) else math.inf

    def next_step(self) -> float | None:
        """The step to look at next, None once the exit is known."""
        if not self._points or self._points[0][0] > self._first:
            return self._first
        inside = self._inside()
        outside = self._points[len(inside)] if len(inside) < len(self._points) else None
        if len(self._points) >= MOST_STEPS:
            return None
        if not inside:
            return self._nearer()
        known = inside if outside is None else [*inside, outside]
        for i, (low, high) in enumerate(pairwise(known), start=1):
            if self._doubtful(known[:i], high):
                return _middle(low, high)
        step = self._farther(inside) if outside is None else self._between(inside, outside)
        if step is None and inside[0][0] > NEARER * inside[-1][0]:
            return NEARER * inside[-1][0]  # of a curve with a kink at 0, longer steps alone may be inside
        return step

    def _inside(self) -> list[Point]:
        """The values up to the first one outside of the band."""
        for i, (_, value) in enumerate(self._points):
            if not abs(value) <= self._band:
                return self._points[:i]
        return list(self._points)

    def _doubtful(self, before: Sequence[Point], last: Point) -> bool:
        """True where the curve between the last two points may leave the band and come back. before: points up to the first of
        the two."""
        (low, nearer), (high, value) = before[-1], last
        if abs(value) > self._band or high <= (1 + self._precision) * low:
            return False
        if high > 1.01 * GROWTH * low or (high > CLOSE * low and not self._foretold(before, last)):
            return True
        near_edge = max(abs(nearer), abs(value)) > self._band / 2
        return near_edge and _Polynomial(_nodes([*before, last])).exit(low, high, self._band) is not None

    def _foretold(self, before: Sequence[Point], last: Point) -> bool:
        """True where the points before foretell the last one, more or less."""
        step, value = last
        expected = [_Polynomial(_nodes(before))(step)]
        if len(before) == 1:
            expected.append(before[0][1])  # of a curve that does not start at 0
        return min(expected) - FORETOLD * self._band <= value <= max(expected) + FORETOLD * self._band

    def _nearer(self) -> float | None:
        """The next step where all so far are outside."""
        shortest = self._points[0][0]
        if shortest <= SMALLEST * self._first:
            return None
        finite = [point for point in self._points[:NODES] if math.isfinite(point[1])]
        exit_at = _Polynomial(_nodes(finite)).exit(shortest / 16, shortest, self._band) if finite else None
        return min(shortest / 2, exit_at or math.inf)

    def _farther(self, inside: Sequence[Point]) -> float | None:
        """The next step where none is outside."""
        longest = inside[-1][0]
        if longest >= FARTHEST * self._first:
            return None
        exit_at = _Polynomial(_nodes(inside)).exit(longest, GROWTH * longest, self._band)
        return GROWTH * longest if exit_at is None else self._aimed(exit_at, longest, math.inf)

    def _between(self, inside: Sequence[Point], outside: Point) -> float | None:
        """The next step between the longest one inside and one outside; None where these are close enough."""
        low, high = inside[-1][0], outside[0]
        if high <= (1 + self._precision) * low * (1 + 1e-9):
            return None
        if not math.isfinite(outside[1]) or (len(self._points) > PLENTY and len(self._points) % 2):
            return _middle(inside[-1], outside)
        exit_at = _Polynomial(_nodes([*inside, outside])).exit(low, high, self._band)
        return _middle(inside[-1], outside) if exit_at is None else self._aimed(exit_at, low, high)

    def _aimed(self, exit_at: float, low: float, high: float) -> float:
        """A step so near to the expected exit that one more closes the bracket, or at once."""
        width = 1 + self._precision
        if exit_at <= low * width:
            return low * width
        return high / width if exit_at >= high / width else exit_at / math.sqrt(width)


class _Polynomial:
    """Newton's polynomial through some points."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._steps = [step for step, _ in points]
        self._coefficients = [value for _, value in points]
        for order in range(1, len(points)):
            for i in reversed(range(order, len(points))):
                change = self._coefficients[i] - self._coefficients[i - 1]
                self._coefficients[i] = change / (self._steps[i] - self._steps[i - order])

    def __call__(self, step: float) -> float:
        value = 0.0
        for coefficient, node in zip(reversed(self._coefficients), reversed(self._steps), strict=True):
            value = value * (step - node) + coefficient
        return value

    def exit(self, low: float, high: float, band: float) -> float | None:
        """The first step between `low` and `high` at which it leaves the band; None where it does not."""
        factor: float = (high / low) ** (1 / SAMPLES)
        step, before = low, abs(self(low))
        for _ in range(SAMPLES):
            following = step * factor
            value = abs(self(following))
            if value > band:
                share = (band - before) / (value - before) if before < band else 0.0
                return step + share * (following - step)
            step, before = following, value
        return None


def _nodes(points: Sequence[Point]) -> Sequence[Point]:
    """The last NODES points; the zero at the step 0 is one where there are fewer. Farther out it says little: where activations
    of a network lie at a kink, as in a background of zeros, the curve starts elsewhere."""
    return [(0.0, 0.0), *points][-NODES:]


def _middle(low: Point, high: Point) -> float:
    return low[0] * math.sqrt(high[0] / low[0])
