"""Tables across cells: verdicts, counts against every control, cells in which the claim does not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from monai_ifim.display import numbers
from monai_ifim.evaluation.measuring.end_points import compared_measures
from monai_ifim.evaluation.records import CellRecord, Comparison, ExperimentRecord, Tally
from monai_ifim.report.experiment.forest import controls
from monai_ifim.report.experiment.wording import HOLM_P, VERDICT_TEXT, estimate_text, family, measure, verdict
from monai_ifim.report.pages.blocks import ABSENT, Entry, Table, TableRow

__all__ = [
    "claim_by_measure",
    "claim_by_task",
    "control_tally",
    "glance",
    "negative_cells",
    "reversed_auroc",
    "verdict_entry",
]

TALLY_COLUMNS = ("cells", "holds", "reverse", "points the asked way")


def verdict_entry(comparison: Comparison | None) -> Entry:
    """The verdict in words."""
    said = verdict(comparison)
    return Entry(VERDICT_TEXT[said], said)


def glance(results: ExperimentRecord) -> Table:
    """One row per cell, failed ones included."""
    failed = (*[ABSENT] * 7, Entry(VERDICT_TEXT["failed"], "failed"))
    rows = []
    for task in results.task_names():
        rows += [_glance_row(cell, results.asked(cell)) for cell in results.cells if cell.task == task]
        rows += [TableRow((results.title(task), f.architecture), failed) for f in results.failed if f.task == task]
    return Table(
        caption="Every cell: how good the classifier is on test images, and by how much more noise inside the leading eigenspace "
        "moves the probability of the predicted class than equally large noise in the complement.",
        columns=(
            "task",
            "architecture",
            "test accuracy",
            "macro AUROC",
            "test images",
            "images perturbed",
            "area difference [95 % interval]",
            HOLM_P,
            "effect size",
            "result",
        ),
        rows=tuple(rows),
    )


def _glance_row(cell: CellRecord, comparison: Comparison | None) -> TableRow:
    classifier = (
        Entry(numbers.proportion(cell.classifier.get("accuracy"))),
        Entry(numbers.proportion(cell.classifier.get("macro_auroc"))),
        Entry(numbers.count(cell.classifier.get("test_images"))),
    )
    if comparison is None:
        return TableRow((cell.task_title, cell.architecture), (*classifier, Entry(numbers.count(cell.images)), *[ABSENT] * 4))
    return TableRow(
        (cell.task_title, cell.architecture),
        (
            *classifier,
            Entry(numbers.count(comparison.images)),
            Entry(estimate_text(comparison.estimate, with_sign=True)),
            Entry(numbers.p_value(comparison.p_holm)),
            Entry(numbers.signed(comparison.rank_biserial, 2)),
            verdict_entry(comparison),
        ),
    )


def negative_cells(results: ExperimentRecord) -> tuple[str, ...]:
    """A line for every cell where the claim is not shown or reversed, with its numbers."""
    lines = []
    for cell in results.cells:
        comparison = results.asked(cell)
        if comparison is None or not comparison.holds:
            lines.append(f"{cell.task_title}, {cell.architecture}: {_negative(comparison)}")
    return tuple(lines)


def _negative(comparison: Comparison | None) -> str:
    if comparison is None or comparison.difference is None:
        return "the comparison was not made or has no value."
    return (
        f"{VERDICT_TEXT[verdict(comparison)]}; difference {estimate_text(comparison.estimate, with_sign=True)}, "
        f"{HOLM_P} {numbers.p_value(comparison.p_holm)}, effect size {numbers.signed(comparison.rank_biserial, 2)}, "
        f"{numbers.counted(comparison.images, 'image')}."
    )


def reversed_auroc(results: ExperimentRecord) -> tuple[str, ...]:
    """A line for every cell where noise in the complement takes more macro AUROC, with the whole 95 % interval below 0."""
    return tuple(
        f"{cell.task_title}, {cell.architecture}: difference {estimate_text(area, with_sign=True)}; macro AUROC on test images "
        f"before any perturbation {numbers.proportion(cell.classifier.get('macro_auroc'))}."
        for cell in results.cells
        if (area := cell.macro_auroc_area) is not None and area.high is not None and area.high < 0
    )


def claim_by_task(results: ExperimentRecord) -> Table:
    """How often the claim holds in each task."""
    rows = tuple(TableRow((results.title(task),), _tally_entries(tally)) for task, tally in results.claim.by_task.items())
    return Table("The same question, task by task.", ("task", *TALLY_COLUMNS), rows)


def claim_by_measure(results: ExperimentRecord) -> Table:
    """How often the claim holds by each measure."""
    rows = tuple(TableRow((measure(name),), _tally_entries(tally)) for name, tally in results.claim.by_measure.items())
    return Table(
        "The same question asked with every measure: leading eigenspace against complement. "
        "Points the asked way: the difference is positive, shown or not.",
        ("measure", *TALLY_COLUMNS),
        rows,
    )


def _tally_entries(tally: Tally) -> tuple[Entry, ...]:
    return tuple(Entry(numbers.count(n)) for n in (tally.cells, tally.holds, tally.reverse, tally.favourable))


def control_tally(results: ExperimentRecord) -> Table:
    """In how many cells noise in the leading eigenspace moves the classifier more than each control does."""
    claim = results.claim
    names = controls(results.cells, claim.first, claim.measure)
    rows = []
    for name in names:
        entries = []
        for column in compared_measures():
            found = (cell.comparison(claim.first, name, column) for cell in results.cells)
            entries.append(_marks(verdict(comparison) for comparison in found))
        rows.append(TableRow((family(name),), tuple(entries)))
    return Table(
        "Cells where the leading eigenspace moves the classifier significantly more than the control in the first column does. "
        "3 of 4, 1 reverse: of four cells with this comparison it holds in three and is reversed in one.",
        ("control", *(measure(name) for name in compared_measures())),
        tuple(rows),
    )


def _marks(verdicts: Iterable[str]) -> Entry:
    """Tally of the verdicts of the cells."""
    counted = Counter(verdicts)
    compared = counted["holds"] + counted["open"] + counted["reverse"]
    if not compared:
        return ABSENT
    text = f"{counted['holds']} of {compared}"
    return Entry(f"{text}, {counted['reverse']} reverse" if counted["reverse"] else text, "text")
