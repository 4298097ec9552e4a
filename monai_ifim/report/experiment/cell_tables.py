"""Tables of one task: its classifiers, controls, removals, locality, checks; and of one cell: everything that was compared."""

from __future__ import annotations

from collections.abc import Sequence

from monai_ifim.display import numbers
from monai_ifim.evaluation.measuring.end_points import compared_measures
from monai_ifim.evaluation.measuring.families import FAMILIES
from monai_ifim.evaluation.records import CellRecord, Claim, Comparison, Estimate
from monai_ifim.report.experiment.forest import controls
from monai_ifim.report.experiment.tables import verdict_entry
from monai_ifim.report.experiment.wording import (
    HOLM_P,
    QUANTITIES,
    VERDICT_TEXT,
    estimate_text,
    family,
    measure,
    verdict,
)
from monai_ifim.report.pages.blocks import ABSENT, Entry, Table, TableRow
from monai_ifim.report.pages.texts import shortened

__all__ = [
    "all_comparisons",
    "by_class",
    "checks",
    "classifiers",
    "control_differences",
    "correctness",
    "geometry",
    "locality",
    "removals",
    "shortcuts",
]

GEOMETRY = (
    "probability",
    "rank",
    "energy_kept",
    "high_norm_share",
    "norm",
    "eigenvalue",
    "trace",
    "locality_radius",
    "relative_locality_radius",
)
CHECKS = ("agreement_noise", "agreement_seed", "twin_trace_share", "chance_trace_share")
# row, then the shares of x_high, of the sensitivity, of the image itself, and of the area or frequencies; None: not measured
SHORTCUTS = (
    ("corners of the image", "corner_share_high", "corner_share_sensitivity", None, "corner_share_area"),
    ("border of the image", "border_share_high", "border_share_sensitivity", None, "border_share_area"),
    ("fine detail", "fine_share_high", None, "fine_share_image", "fine_share_area"),
)


def classifiers(cells: Sequence[CellRecord]) -> Table:
    """The classifiers: accuracy, training, weights."""
    names = ("accuracy", "macro_auroc", "test_images", "training_images", "epochs", "training_seed", "parameters", "seconds")
    write = {"accuracy": numbers.proportion, "macro_auroc": numbers.proportion, "seconds": numbers.duration}
    rows = []
    for cell in cells:
        entries = [Entry(write.get(name, numbers.count)(cell.classifier.get(name))) for name in names]
        weights = str(cell.classifier.get("weights_sha256") or numbers.NOT_AVAILABLE)[:12]
        rows.append(TableRow((cell.architecture,), (*entries, Entry(weights, "text"))))
    return Table(
        "The classifiers, with their performance on test images before any perturbation.",
        (
            "architecture",
            "accuracy",
            "macro AUROC",
            "test images",
            "training images",
            "epochs",
            "training seed",
            "parameters",
            "training time",
            "weights, SHA-256 begins",
        ),
        tuple(rows),
    )


def control_differences(cells: Sequence[CellRecord], claim: Claim) -> Table:
    """Leading eigenspace minus every control, in the measure of the claim."""
    rows = []
    for name in controls(cells, claim.first, claim.measure):
        for cell in cells:
            comparison = cell.comparison(claim.first, name, claim.measure)
            rows.append(TableRow((family(name), cell.architecture), _comparison_entries(comparison)))
    return Table(
        f"Leading eigenspace (first) against every control (second): area difference of the {measure(claim.measure)}.",
        ("compared with", "architecture", *COMPARISON_COLUMNS),
        tuple(rows),
    )


COMPARISON_COLUMNS = (
    "images",
    "mean of first",
    "mean of second",
    "difference [95 % interval]",
    HOLM_P,
    "effect size",
    "result",
)


def _comparison_entries(comparison: Comparison | None) -> tuple[Entry, ...]:
    if comparison is None:
        return (ABSENT,) * len(COMPARISON_COLUMNS)
    return (
        Entry(numbers.count(comparison.images)),
        Entry(numbers.number(comparison.first_mean)),
        Entry(numbers.number(comparison.second_mean)),
        Entry(estimate_text(comparison.estimate, with_sign=True)),
        Entry(numbers.p_value(comparison.p_holm)),
        Entry(numbers.signed(comparison.rank_biserial, 2)),
        verdict_entry(comparison),
    )


def correctness(cells: Sequence[CellRecord], claim: Claim) -> Table:
    """Accuracy and macro AUROC lost, leading eigenspace against complement."""
    rows = []
    for cell in cells:
        rows.append(TableRow((cell.architecture, "accuracy"), _lost(cell.comparison(claim.first, claim.second, "correct"))))
        area = cell.macro_auroc_area
        images = numbers.count(area.images) if area else numbers.NOT_AVAILABLE
        auroc = (Entry(images), Entry(estimate_text(area, with_sign=True)), ABSENT, ABSENT)
        rows.append(TableRow((cell.architecture, "macro AUROC"), auroc))
    return Table(
        "How much more performance noise in the leading eigenspace takes than noise in the complement, averaged over the grid of "
        "norms. Macro AUROC belongs to all images together, so it has an interval but no test over images.",
        ("architecture", "performance", "images", "lost more [95 % interval]", HOLM_P, "result"),
        tuple(rows),
    )


def _lost(comparison: Comparison | None) -> tuple[Entry, ...]:
    if comparison is None:
        return (ABSENT,) * 4
    return (
        Entry(numbers.count(comparison.images)),
        Entry(estimate_text(comparison.estimate, with_sign=True)),
        Entry(numbers.p_value(comparison.p_holm)),
        verdict_entry(comparison),
    )


def removals(cells: Sequence[CellRecord]) -> Table:
    """Complete removal of x_high against removal of an equally large part of x_low."""
    rows = []
    for cell in cells:
        for name in compared_measures():
            comparison = cell.comparison("remove_high", "remove_low", name, "removal")
            if comparison is not None:
                rows.append(TableRow((cell.architecture, measure(name)), _comparison_entries(comparison)))
    return Table(
        "Removal: x_high taken away whole (first) against an equally large part of x_low (second), both of the norm of the "
        "smaller of the two. The difference is first minus second, for accuracy second minus first.",
        ("architecture", "measure", *COMPARISON_COLUMNS),
        tuple(rows),
    )


def locality(cells: Sequence[CellRecord]) -> Table:
    """Measured over predicted divergence."""
    rows = []
    for cell in cells:
        for side in ("inside", "outside"):
            ratio = cell.divergence_ratio.get(side, Estimate(None))
            entries = (
                Entry(numbers.count(ratio.images)),
                Entry(numbers.count(ratio.rows)),
                Entry(estimate_text(ratio)),
            )
            rows.append(TableRow((cell.architecture, f"{side} what component 1 describes"), entries))
    return Table(
        "Measured divergence over the predicted one, for steps along +u₁ and \N{MINUS SIGN}u₁: median and 95 % interval. "
        "1 is a perfect prediction. Inside: steps up to the longest that component 1 describes there, its locality radius.",
        ("architecture", "steps", "images", "steps measured", "measured / predicted [95 % interval]"),
        tuple(rows),
    )


def checks(cells: Sequence[CellRecord]) -> Table | None:
    """Checks of the leading eigenspace: against an untrained network, under slight noise, and between trainings."""
    return _quantities(cells, CHECKS, "Is the leading eigenspace stable, and is it the trained network's own?")


def geometry(cells: Sequence[CellRecord]) -> Table | None:
    """All other quantities per image, also those that this report does not know by name."""
    named = {name for _, *names in SHORTCUTS for name in names} | set(CHECKS)
    found = {name for cell in cells for name in cell.images_scalars} - named
    order = [*GEOMETRY, *sorted(found - set(GEOMETRY))]
    return _quantities(cells, [name for name in order if name in found], "The decompositions.")


def _quantities(cells: Sequence[CellRecord], names: Sequence[str], caption: str) -> Table | None:
    present = [name for name in names if any(name in cell.images_scalars for cell in cells)]
    if not present:
        return None
    rows = tuple(
        TableRow((QUANTITIES.get(name, name),), tuple(_with_images(cell.images_scalars.get(name)) for cell in cells))
        for name in present
    )
    heads = tuple(cell.architecture for cell in cells)
    return Table(f"{caption} Mean over images [95 % interval], number of images.", ("quantity", *heads), rows)


def _with_images(value: Estimate | None) -> Entry:
    if value is None or value.value is None:
        return ABSENT
    return Entry(f"{estimate_text(value)}, {_number(value)}", "long")


def _number(value: Estimate) -> str:
    """The number of images, n = 61, with spaces that do not break."""
    return f"n = {numbers.count(value.images)}".replace(" ", numbers.FIRM_SPACE)


def shortcuts(cells: Sequence[CellRecord]) -> Table | None:
    """Where x_high and the sensitivity lie: corners, border and fine detail, beside the image's and an even spread's share."""
    rows = []
    for cell in cells:
        for label, *names in SHORTCUTS:
            values = [cell.images_scalars.get(name) if name else None for name in names]
            if any(values):
                rows.append(TableRow((cell.architecture, label), tuple(_with_images(value) for value in values)))
    if not rows:
        return None
    return Table(
        "Signs of shortcuts: which share of x_high's power and of the sensitivity lies in the corners, on the border, or in fine "
        "detail (beyond half the Nyquist frequency). The last column is what an even spread, such as white noise, would give. "
        "x_high is finer than the image where its share of fine detail exceeds the image's. "
        "Mean over images [95 % interval], number of images.",
        ("architecture", "where", "share of the sensitive part", "share of the sensitivity", "share of the image", "even spread"),
        tuple(rows),
    )


def all_comparisons(cell: CellRecord) -> Table:
    """Every comparison of a cell."""
    order = list(FAMILIES)
    rows = []
    for c in sorted(cell.comparisons, key=lambda c: (c.kind, order.index(c.second) if c.second in order else len(order))):
        rows.append(
            TableRow(
                (f"{family(c.first)} against {family(c.second)}", measure(c.measure)),
                (
                    *_comparison_entries(c)[:-3],
                    Entry(c.interval, "text"),
                    Entry(numbers.p_value(c.p_value)),
                    Entry(numbers.p_value(c.p_holm)),
                    Entry(numbers.signed(c.rank_biserial, 2)),
                    Entry(numbers.signed(c.cohens_dz, 2)),
                    Entry(VERDICT_TEXT[verdict(c)], verdict(c)),
                ),
            )
        )
    heads = (*COMPARISON_COLUMNS[:4], "interval by", "p", HOLM_P, "effect size", "Cohen's d_z", "result")
    return Table(
        f"{cell.task_title}, {cell.architecture}: all comparisons. bca and percentile are the kinds of bootstrap interval.",
        ("compared", "measure", *heads),
        tuple(rows),
    )


def by_class(cell: CellRecord) -> Table | None:
    """Quantities per image, a row for each predicted class: there are few quantities, and there may be hundreds of classes."""
    names = list(dict.fromkeys(name for values in cell.by_class.values() for name in values))
    if not names:
        return None
    rows = [
        TableRow((shortened(label),), tuple(_mean_with_images(values.get(name)) for name in names))
        for label, values in cell.by_class.items()
    ]
    return Table(
        f"{cell.task_title}, {cell.architecture}: means by predicted class, with the number of images.",
        ("predicted class", *(QUANTITIES.get(name, name) for name in names)),
        tuple(rows),
    )


def _mean_with_images(value: Estimate | None) -> Entry:
    if value is None or value.value is None:
        return ABSENT
    return Entry(f"{numbers.number(value.value)}, {_number(value)}", "long")
