"""The sentence about a case in the gallery and on its card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from monai_ifim.display import numbers
from monai_ifim.display.saturation import SATURATED
from monai_ifim.report.pages.texts import shortened, words

__all__ = ["case_sentence", "step_sentence"]

COST = 0.1  # nats: what the change in the sentence costs, unless the eigenvalue holds up to a smaller one only


def case_sentence(case: Mapping[str, Any]) -> str:
    """What a case is worth looking at for, in one sentence."""
    if case["status"] == "failed":
        return shortened(f"Failed: {words(case['reason'])}")
    if case["saturated"] == "yes":
        return f"{SATURATED[:1].upper()}{SATURATED[1:]}."
    if case["notes"]:
        return shortened(f"Stands out: {case['notes']}.")
    if sentence := words(case["volume_sentence"]):
        return shortened(sentence)
    return step_sentence(case)


def step_sentence(case: Mapping[str, Any]) -> str:
    """How far a change along component 1 moves the answer: one that costs COST, or the largest that the eigenvalue describes."""
    eigenvalue, whole = _known(case["eigenvalue"]), _known(case["norm_input"])
    if not eigenvalue or not whole:
        return ""
    radii = case["locality_radius"]
    radius = _known(radii[0]) if isinstance(radii, Sequence | np.ndarray) and len(radii) else 0.0
    step = min(math.sqrt(2 * COST / eigenvalue), radius or math.inf)
    cost = f"{numbers.number(eigenvalue * step**2 / 2, 2)}{numbers.FIRM_SPACE}nats"
    if step >= whole:
        return f"No change along component 1 that is smaller than the image itself moves the answer by {cost}."
    return f"A change of {numbers.percent(step / whole)} of the image along component 1 moves the answer by {cost}."


def _known(value: Any) -> float:
    """A positive, finite number; 0 for anything else."""
    return float(value) if not pd.isna(value) and 0 < value < math.inf else 0.0
