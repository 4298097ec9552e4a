"""Named coordinates in words: "1 mm towards the head: 0.07 nats, lowers P(lesion) by 0.04"."""

from __future__ import annotations

import math

from monai_ifim.display.numbers import FIRM_SPACE, number
from monai_ifim.options import STEP_NATS

UNTRIED = "Predicted from derivatives, which hold for small moves; moves of these sizes were not tried."
DIRECTIONS = {
    "shift L": "towards the patient's left",
    "shift P": "towards the back",
    "shift S": "towards the head",
    "rotation about L": "about the left-right axis",
    "rotation about P": "about the front-back axis",
    "rotation about S": "about the long axis",
}


def move_words(name: str, unit: str, amount: float = 1.0) -> str:
    """A move in words: "1 mm towards the head", "10 HU of offset"."""
    how = DIRECTIONS.get(name) or f"of {name}"
    sized = f"{number(amount, 2) if amount != 1 else '1'}{FIRM_SPACE}{unit}"
    return f"{sized} {how}"


def told_move(nats: float | None, step: float | None) -> float:
    """The move that a sentence tells of: one unit, or, where that costs more than STEP_NATS, the step that costs STEP_NATS."""
    return step if nats is not None and step is not None and nats > STEP_NATS else 1.0


def coordinate_sentence(
    name: str, unit: str, nats: float | None, step: float | None, answer: str, slope: float | None, of_probability: bool
) -> str:
    """What a move costs and does to one answer.

    nats: of one unit; step: that costs STEP_NATS; slope: change of the answer per unit, of its probability if `of_probability`.
    """
    if nats is None:
        return f"{move_words(name, unit)}: what it costs is not known."
    amount = told_move(nats, step)
    cost = f"{number(nats * amount**2, 2)}{FIRM_SPACE}nats"
    said = f"{move_words(name, unit, amount)}: {cost}"
    if slope is None or not math.isfinite(slope) or slope == 0 or not answer:
        return f"{said}."
    what = f"P({answer})" if of_probability else answer
    return f"{said}, {'raises' if slope > 0 else 'lowers'} {what} by {number(abs(slope) * amount, 2)}."
