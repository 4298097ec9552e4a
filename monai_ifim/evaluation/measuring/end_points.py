"""What is measured and compared: the measures with unit and direction, and the comparison that the claim is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["CLAIM", "MEASURES", "Claimed", "Measure", "compared_measures", "curve_measures", "drawn_measures", "measured_columns"]


@dataclass(frozen=True)
class Measure:
    """One measure of what a perturbation does to a classifier's answer.

    name: in tables and records. label: short name. unit: "" for probabilities. detail: what the label leaves out. lowered: True
    if it falls where the classifier is moved more; comparisons are then second minus first. compared: it is an end point.
    measured: it is a column of the table of measurements; False for what belongs to all images together. has_curve: its mean
    over images has a curve. drawn: the curve has a panel on the page.
    """

    name: str
    label: str
    unit: str = ""
    detail: str = ""
    lowered: bool = False
    compared: bool = False
    measured: bool = True
    has_curve: bool = True
    drawn: bool = False

    @property
    def heading(self) -> str:
        """Label with the unit in parentheses."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def axis(self) -> str:
        """Label of an axis: detail or unit on a second line."""
        below = self.detail or self.unit
        return f"{self.label}\n({below})" if below else self.label


@dataclass(frozen=True)
class Claimed:
    """The comparison that an experiment is about: `first` moves the classifier more than `second`, by `measure`."""

    first: str
    second: str
    measure: str


MEASURES: Mapping[str, Measure] = MappingProxyType(
    {
        measure.name: measure
        for measure in (
            Measure("probability_change", "signed probability change"),
            Measure("absolute_change", "probability change", detail="predicted class, absolute", compared=True, drawn=True),
            Measure("divergence", "divergence", "nats", compared=True, drawn=True),
            Measure("predicted_divergence", "predicted divergence", "nats"),
            Measure("flipped", "changed answers", "share", compared=True),
            Measure("correct", "accuracy", lowered=True, compared=True, has_curve=False),
            Measure("negative_log_likelihood", "negative log-likelihood", "nats", compared=True),
            Measure("accuracy", "accuracy", lowered=True, measured=False, drawn=True),  # the mean of `correct` over images
            Measure("macro_auroc", "macro AUROC", lowered=True, measured=False, drawn=True),
        )
    }
)
CLAIM = Claimed("noise_high", "noise_low", "absolute_change")
REMOVAL = ("remove_high", "remove_low")  # compared at the norm of the smaller component


def measured_columns() -> tuple[str, ...]:
    """Measures of one image and one perturbation: columns of the table of measurements."""
    return tuple(name for name, measure in MEASURES.items() if measure.measured)


def compared_measures() -> tuple[str, ...]:
    """The end points: measures by which families are compared."""
    return tuple(name for name, measure in MEASURES.items() if measure.compared)


def drawn_measures() -> tuple[str, ...]:
    """Measures whose curves have a panel on the page."""
    return tuple(name for name, measure in MEASURES.items() if measure.drawn)


def curve_measures() -> tuple[str, ...]:
    """Measures that have a curve over the norm."""
    return tuple(name for name, measure in MEASURES.items() if measure.has_curve)
