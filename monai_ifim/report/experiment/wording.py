"""Names of families, measures and quantities on the page, and definitions of its terms."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from monai_ifim.display import numbers
from monai_ifim.display.vocabulary import (
    COMPONENTS_KEPT,
    HOLDS_UP_TO,
    LEADING,
    PER_UNIT,
    SENSITIVITY_KEPT,
    SIZE,
    SIZE_HIGH,
    TOTAL_SENSITIVITY,
)
from monai_ifim.evaluation.measuring.end_points import MEASURES
from monai_ifim.evaluation.measuring.families import FAMILIES
from monai_ifim.evaluation.records import Comparison, Estimate

__all__ = [
    "HOLM_P",
    "MEANING",
    "QUANTITIES",
    "VERDICT_TEXT",
    "estimate_text",
    "family",
    "family_meanings",
    "in_line",
    "measure",
    "selection_text",
    "verdict",
]

HOLM_P = "Holm\N{NO-BREAK SPACE}p"

QUANTITIES: Mapping[str, str] = MappingProxyType(
    {
        "probability": "probability of the predicted class",
        "rank": f"{COMPONENTS_KEPT.label}, k",
        "energy_kept": SENSITIVITY_KEPT.label,
        "eigenvalue": f"{LEADING.label} ({PER_UNIT} of the input)",
        "trace": f"{TOTAL_SENSITIVITY.label} ({PER_UNIT} of the input)",
        "norm": f"{SIZE.label}, |x| (input unit)",
        "high_norm_share": f"{SIZE_HIGH.label} over that of the image",
        "locality_radius": f"component 1 {HOLDS_UP_TO.label} (input unit)",
        "relative_locality_radius": f"component 1 {HOLDS_UP_TO.label} (share of the size of the image)",
        "agreement_noise": "agreement of the kept components under slight input noise (0 to 1)",
        "agreement_seed": "agreement of the kept components across training seeds (0 to 1)",
        "twin_trace_share": f"share of the {TOTAL_SENSITIVITY.label} inside the untrained twin's leading directions",
        "chance_trace_share": f"share of the {TOTAL_SENSITIVITY.label} inside as many random directions (chance)",
        "seconds": "seconds per image",
    }
)

MEANING: tuple[tuple[str, str], ...] = (
    ("cell", "One task with one architecture. Every cell is a classifier of its own, tested on images it was not trained on."),
    (
        "leading eigenspace",
        "The few directions u₁ ... uₖ in which the Fisher information of the classifier at this very image is largest. x_high "
        "is the part of the image x that lies in them, x_low the rest: x_high + x_low = x. For two classes it is one direction, "
        "the input gradient of the log-odds, and noise in it is compared with noise orthogonal to the gradient.",
    ),
    (
        "norm",
        "Perturbations are as large as a stated share of the image: |d| / |x|, L2 norms in the network's input. All families "
        "are compared at the same norms.",
    ),
    (
        "probability change",
        "How far the probability of the class predicted at x moves, up or down, as an absolute value between 0 and 1.",
    ),
    ("divergence", "KL(p(x) || p(x + d)), in nats, between the answers before and after. 0 means the answer did not move."),
    (
        "area difference",
        "Each image's curve over the norms is averaged over the whole grid of norms; the difference between two families is "
        "taken image by image and then averaged over images. It has the unit of the measure. It is the first family minus the "
        "second, for accuracy the second minus the first: positive always means that the first moves the classifier more.",
    ),
    ("95 % interval", "Bootstrap interval over images. Draws of noise at one image count as one image."),
    (
        HOLM_P,
        "Two-sided Wilcoxon signed-rank test over images, corrected by Holm's method for the number of cells tested.",
    ),
    (
        "effect size",
        "Matched-pairs rank-biserial correlation, from \N{MINUS SIGN}1 to 1: 1 where the first family moves every image more, "
        "0 where neither prevails.",
    ),
    ("holds", f"{HOLM_P} is below 0.05, and the whole interval and the effect size lie above 0."),
    (
        "reverse",
        f"{HOLM_P} is below 0.05, and the whole interval and the effect size lie below 0: the data speak against it.",
    ),
    ("not shown", "Neither. It does not say that there is no difference."),
    ("n/a", "There is no value: not measured, not defined, or not applicable. It never stands for 0."),
)

VERDICT_TEXT: Mapping[str, str] = MappingProxyType(
    {"holds": "holds", "reverse": "reverse", "open": "not shown", "absent": "n/a", "failed": "failed"}
)


def family(name: str) -> str:
    """Label of a family; its name where the registry does not have it."""
    return FAMILIES[name].label if name in FAMILIES else name


def family_meanings(names: Collection[str]) -> tuple[tuple[str, str], ...]:
    """(label, meaning) of each of these families, in the order of the registry."""
    return tuple((found.label, found.meaning) for name, found in FAMILIES.items() if name in names)


def measure(name: str) -> str:
    """Heading of a measure; its name where it is unknown."""
    return MEASURES[name].heading if name in MEASURES else name


def in_line(name: str) -> str:
    """The axis label of a measure on one line."""
    return " ".join(MEASURES[name].axis.split())


def estimate_text(value: Estimate | None, with_sign: bool = False) -> str:
    """Value and interval."""
    if value is None:
        return numbers.NOT_AVAILABLE
    return numbers.estimate(value.value, value.low, value.high, with_sign)


def selection_text(content: Mapping[str, Any]) -> str:
    """The rule that selects the leading eigenspace."""
    if content.get("rank") is not None:
        return f"the {content['rank']} strongest components"
    if content.get("energy") is not None:
        return f"the fewest components that hold {numbers.percent(float(content['energy']))} of the {TOTAL_SENSITIVITY.label}"
    return numbers.NOT_AVAILABLE


def verdict(comparison: Comparison | None) -> str:
    """One of holds, reverse, open (neither) and absent."""
    if comparison is None or comparison.difference is None:
        return "absent"
    if comparison.holds:
        return "holds"
    return "reverse" if comparison.reverse else "open"
