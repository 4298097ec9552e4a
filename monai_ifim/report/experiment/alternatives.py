"""The numbers of each figure of a report in words, for readers who cannot see it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from monai_ifim.display import numbers
from monai_ifim.evaluation.measuring.end_points import CLAIM
from monai_ifim.evaluation.measuring.families import families_of
from monai_ifim.evaluation.records import CellRecord, Claim, Comparison, Curve, Example, ExperimentRecord
from monai_ifim.report.experiment.forest import controls
from monai_ifim.report.experiment.wording import VERDICT_TEXT, estimate_text, family, verdict

__all__ = ["answer_text", "controls_text", "curves_text", "forest_text", "locality_text", "removal_text"]

MOST_SAID = 12  # differences that one text lists; tables hold all


def forest_text(results: ExperimentRecord) -> str:
    """The difference of every cell."""
    return _listed(f"{cell.task_title}, {cell.architecture}: {_difference(results.asked(cell))}" for cell in results.cells)


def controls_text(cells: Sequence[CellRecord], claim: Claim) -> str:
    """The difference from every control in every cell of a task."""
    names = controls(cells, claim.first, claim.measure)
    return _listed(
        f"{cell.architecture}, {family(name)}: {_difference(cell.comparison(claim.first, name, claim.measure))}"
        for cell in cells
        for name in names
    )


def curves_text(cell: CellRecord) -> str:
    """The probability change at the largest norm, in the leading eigenspace and in its complement."""
    ends = [_end(cell.curve(name, CLAIM.measure)) for name in (CLAIM.first, CLAIM.second)]
    said = [f"{family(name)} {end[1]}" for name, end in zip((CLAIM.first, CLAIM.second), ends, strict=True) if end is not None]
    largest = next((end[0] for end in ends if end is not None), None)
    return f"Probability change at the largest norm, {largest}: {', '.join(said)}." if said else ""


def removal_text(cells: Sequence[CellRecord]) -> str:
    """The probability change at the largest norm taken away, of every family and cell."""
    found = [
        (cell.architecture, family(name), _end(cell.curve(name, "absolute_change")))
        for cell in cells
        for name in families_of("attenuation")
    ]
    return _listed(f"{cell}, {name}: {end[1]} at {end[0]}" for cell, name, end in found if end is not None)


def locality_text(cells: Sequence[CellRecord]) -> str:
    """The mean locality radius of every cell, over |x|."""
    radii = [(cell.architecture, cell.images_scalars.get("relative_locality_radius")) for cell in cells]
    said = [f"{name} {estimate_text(radius)}" for name, radius in radii if radius is not None and radius.value is not None]
    return f"Mean locality radius over the norm of the image: {'; '.join(said)}." if said else ""


def answer_text(example: Example) -> str:
    """An example's name, label, answer and probability."""
    sure = numbers.probability(example.probability)
    return f"{example.image}: true {example.label}, answer {example.predicted}, probability {sure}"


def _difference(comparison: Comparison | None) -> str:
    said = VERDICT_TEXT[verdict(comparison)]
    return said if comparison is None else f"{estimate_text(comparison.estimate, with_sign=True)}, {said}"


def _end(curve: Curve | None) -> tuple[str, str] | None:
    """(norm, mean) at the largest norm that has a value; None without any."""
    if curve is None or not np.isfinite(curve.mean).any():
        return None
    known = np.flatnonzero(np.isfinite(curve.mean))
    return numbers.as_given(float(curve.relative_norm[known[-1]])), numbers.number(float(curve.mean[known[-1]]))


def _listed(texts: Iterable[str]) -> str:
    """The texts as one sentence, at most MOST_SAID of them; empty without any."""
    said = list(texts)
    more = f"; and {len(said) - MOST_SAID} more" if len(said) > MOST_SAID else ""
    return f"{'; '.join(said[:MOST_SAID])}{more}." if said else ""
