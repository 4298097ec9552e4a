"""The spectrum of a case as a small SVG drawing: eigenvalues on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from monai_ifim.display import numbers
from monai_ifim.display.vocabulary import BY_COMPONENT, PER_UNIT

__all__ = ["SpectrumDrawing", "Tick", "draw_spectrum"]

WIDTH, HEIGHT = 360, 200  # of the drawing, in its own units, about CSS pixels
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 10, 36  # margins
MOST_DECADES = 5  # labels at powers of ten; of more, every second, third ... is labelled
FEW_DECADES = 2  # up to so many, 2 and 5 times the powers of ten are labelled too
MOST_NUMBERS = 8  # labels of components
WIDEST_STEP = 60.0  # largest distance between two components


@dataclass(frozen=True)
class Tick:
    """A label and its place along the axis, in units of the drawing."""

    place: float
    text: str


@dataclass(frozen=True)
class SpectrumDrawing:
    """dots, stems, zeros: SVG path data of eigenvalues, of the lines below them, and of crosses for eigenvalues that are 0."""

    dots: str
    stems: str
    zeros: str
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    alt: str
    size: tuple[int, int] = (WIDTH, HEIGHT)
    frame: tuple[int, int, int, int] = (LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM)  # left, top, right, bottom


def draw_spectrum(eigenvalues: Sequence[float | None]) -> SpectrumDrawing | None:
    """Draw eigenvalues, descending, in nats per unit²; the place of one that is None stays empty. None if there are none."""
    known = [value for value in eigenvalues if value is not None]
    if not known:
        return None
    positive = [value for value in known if value > 0]
    low, high = _decades(positive)
    floor = HEIGHT - BOTTOM
    across = [round(LEFT + place, 1) for place in _places(len(eigenvalues))]
    heights = [
        round(floor - (math.log10(value) - low) / (high - low) * (floor - TOP), 1) if value else None for value in eigenvalues
    ]
    seen = [(x, y) for x, y in zip(across, heights, strict=True) if y is not None]
    none = [x for x, value in zip(across, eigenvalues, strict=True) if value is not None and value <= 0]
    rows = [Tick(round(floor - (place - low) / (high - low) * (floor - TOP), 1), text) for place, text in _labels(low, high)]
    return SpectrumDrawing(
        dots="".join(f"M{x:g} {y:g}h0" for x, y in seen),
        stems="".join(f"M{x:g} {y:g}V{floor}" for x, y in seen),
        zeros="".join(f"M{x - 4:g} {floor - 4}l8 8m0-8l-8 8" for x in none),
        rows=tuple(rows) if positive else (),
        columns=tuple(Tick(across[i - 1], str(i)) for i in _numbered(len(across))),
        alt=_alt(known),
    )


def _decades(positive: Sequence[float]) -> tuple[int, int]:
    """Exponents at the ends of the axis: at least one decade, with room below the smallest value."""
    if not positive:
        return 0, 1
    low, high = math.floor(math.log10(min(positive)) - 0.1), math.ceil(math.log10(max(positive)))
    return low, max(high, low + 1)


def _labels(low: int, high: int) -> list[tuple[float, str]]:
    """(logarithm, text) of the labels between two powers of ten."""
    stride = max(1, -(-(high - low) // MOST_DECADES))
    factors = (1, 2, 5) if high - low <= FEW_DECADES else (1,)
    found = [(factor, power) for power in range(low, high + 1, stride) for factor in factors if factor == 1 or power < high]
    values = [(math.log10(factor) + power, float(f"{factor}e{power}")) for factor, power in found]
    return [(place, numbers.number(value, 1)) for place, value in values if 0 < value < math.inf]


def _places(number: int) -> list[float]:
    """Distances of the components from the left end of the axis."""
    room = WIDTH - LEFT - RIGHT
    step = min(WIDEST_STEP, room / number)
    return [step * (i + 0.5) for i in range(number)]


def _numbered(number: int) -> list[int]:
    """Components with a label: the first, and evenly spaced round numbers."""
    if number <= MOST_NUMBERS:
        return list(range(1, number + 1))
    power = 10 ** math.floor(math.log10(number / MOST_NUMBERS))
    step = next(factor * power for factor in (1, 2, 5, 10) if number / (factor * power) <= MOST_NUMBERS)
    return [1, *range(step if step > 1 else 2, number + 1, step)]


def _alt(eigenvalues: Sequence[float]) -> str:
    first = numbers.number(eigenvalues[0])
    if len(eigenvalues) == 1:
        return f"{BY_COMPONENT.title}: one component, {first} {PER_UNIT}."
    return (
        f"{BY_COMPONENT.title}: {numbers.count(len(eigenvalues))} components, from {first} down to "
        f"{numbers.number(eigenvalues[-1])} {PER_UNIT}."
    )
