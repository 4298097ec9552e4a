"""The glossary at the end of the page: the vocabulary's terms that the page of this run uses, folded."""

from __future__ import annotations

from typing import Any

from monai_ifim.display import vocabulary as words
from monai_ifim.display.numbers import NOT_AVAILABLE
from monai_ifim.display.term import Term
from monai_ifim.report.cohort.records import Cohort
from monai_ifim.report.pages.blocks import Block, Definitions, Fold, Paragraph, Section

__all__ = ["distinct", "glossary", "terms_of"]

MOST_NAMED = 5  # different values of a column that are listed
OF_VOLUMES = (words.EXPECTED_VOLUME, words.TOLERANCE, words.CHANGE_OF_VOLUME)
OF_ITERATION = (words.CONVERGENCE, words.RESIDUAL)
OF_LABELS = (words.LABEL,)
OF_CHANNELS = (words.CHANNELS,)
ABSENT = (NOT_AVAILABLE, "Not available. It never stands for 0.")


def glossary(cohort: Cohort) -> Section:
    """The unit of the run's numbers, and below it the words of the page."""
    entries = [(term.label, _described(term)) for term in terms_of(cohort)]
    blocks: list[Block] = [Paragraph(text) for text in _unit(cohort)]
    return Section("Glossary", "glossary", (*blocks, Fold("The words of this page", (Definitions((*entries, ABSENT)),))))


def terms_of(cohort: Cohort) -> tuple[Term, ...]:
    """The terms of the glossary without those of answers, methods and inputs that this run does not have."""
    made = cohort.made
    absent = {
        *(() if made["volume_labels"].notna().any() else OF_VOLUMES),
        *(() if made["residual"].notna().any() else OF_ITERATION),
        *(() if made["head"].fillna("").astype(str).str.startswith(("bernoulli", "volumes", "voxelwise")).any() else OF_LABELS),
        *(() if (made["channels"].fillna("") != "").any() else OF_CHANNELS),
    }
    return tuple(term for term in words.GLOSSARY if term not in absent)


def distinct(values: Any) -> str:
    """Distinct texts of a column in one line; at most MOST_NAMED of them."""
    found = list(dict.fromkeys(value for value in values if isinstance(value, str)))
    text = ", ".join(found[:MOST_NAMED])
    return f"{text} and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else text


def _described(term: Term) -> str:
    """The meaning, and the names in papers and in files."""
    return f"{term.tip} In files: {', '.join(term.fields)}." if term.fields else term.tip


def _unit(cohort: Cohort) -> tuple[str, ...]:
    """What one unit is in this run; empty where no case says."""
    units, grids = distinct(cohort.made["unit"]), distinct(cohort.made["norms_grid"])
    where = f" Steps are measured by their L2 norm on the grid of the decomposition ({grids})." if grids else ""
    return (f"The unit of the image that was decomposed: {units}.{where}",) if units else ()
