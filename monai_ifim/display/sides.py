"""The patient's sides as letters at the edges of a picture, and places in mm as readers of images write them.

Directions and places are in RAS: the first axis runs to the patient's right, the second to the front, the third to the head.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from monai_ifim.display.numbers import FIRM_SPACE, fixed

__all__ = ["edge_letters", "edge_words", "letter_places", "place_text", "side_text"]

LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))  # towards the negative and the positive end of each axis
WORDS = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "feet"}
NEAR = 0.12  # share of a picture: a letter this near to a spot would cover it
ASIDE = 0.25  # share of an edge by which a letter then moves along it
OBLIQUE = math.sin(math.radians(22.5))  # from this share of a direction on, a further letter names it


def edge_letters(direction: Iterable[float]) -> str:
    """The letters of a RAS direction, the main one first: "R", or "RA" where it runs between right and front.

    >>> edge_letters((0.0, 0.0, -2.0)), edge_letters((0.8, 0.6, 0.0))
    ('I', 'RA')
    """
    parts = [float(part) for part in direction]
    axes = sorted(range(3), key=lambda axis: -abs(parts[axis]))
    return "".join(LETTERS[axis][parts[axis] > 0] for axis in axes if abs(parts[axis]) > OBLIQUE * math.hypot(*parts))


def edge_words(letters: str) -> str:
    """The letters of an edge in words: "right front" for "RA"."""
    return " ".join(WORDS.get(letter, letter) for letter in letters)


def letter_places(spot: tuple[float, float] | None) -> tuple[tuple[float, float], ...]:
    """Where the letters of a picture's left, right, top and bottom edge stand: in the middle, or aside where that is on the spot.

    Places and spot: (across, down) as shares of the picture, from its upper left corner.

    >>> letter_places((0.5, 0.95))[3]
    (0.25, 0.98)
    """
    middles = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.02), (0.5, 0.98))
    asides = ((0.02, ASIDE), (0.98, ASIDE), (ASIDE, 0.02), (ASIDE, 0.98))
    if spot is None:
        return middles
    near = [max(abs(x - spot[0]), abs(y - spot[1])) < NEAR for x, y in middles]
    return tuple(asides[i] if near[i] else middles[i] for i in range(4))


def side_text(value: float, axis: int) -> str:
    """A coordinate along one RAS axis, in mm, as the letter of its side and its distance: "S 12.5 mm"."""
    distance = fixed(abs(value), 1)
    return f"{LETTERS[axis][value >= 0 or float(distance) == 0]}{FIRM_SPACE}{distance}{FIRM_SPACE}mm"


def place_text(point: Sequence[float]) -> str:
    """A RAS place in mm: "R 1.0 mm, P 20.0 mm, S 3.5 mm"."""
    return ", ".join(side_text(value, axis) for axis, value in enumerate(point))
