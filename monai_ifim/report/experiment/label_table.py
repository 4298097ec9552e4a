"""The table of independent labels of one task."""

from __future__ import annotations

from collections.abc import Sequence

from monai_ifim.display import numbers
from monai_ifim.evaluation.records import CellRecord
from monai_ifim.report.experiment.wording import estimate_text
from monai_ifim.report.pages.blocks import Entry, Table, TableRow
from monai_ifim.report.pages.texts import shortened

__all__ = ["INDEPENDENT", "label_table"]

INDEPENDENT = (
    "The labels are independent: none of them is the answer. Changes of probability, changed answers (yes above 0.5), accuracy "
    "and negative log-likelihood of an image are means over its labels, those of truth over the labels that are known. "
    "Attributions are of the likeliest label."
)


def label_table(cells: Sequence[CellRecord]) -> Table:
    """Each label's images, AUROC, likelihood, and how much farther noise in the leading eigenspace moves its probability."""
    rows = tuple(
        TableRow(
            (shortened(label.name), cell.architecture),
            (
                *(Entry(numbers.count(number)) for number in (label.positive, label.negative, label.unknown)),
                Entry(estimate_text(label.auroc)),
                Entry(estimate_text(label.negative_log_likelihood)),
                Entry(estimate_text(label.effect, with_sign=True)),
            ),
        )
        for cell in cells
        for label in cell.labels
    )
    return Table(
        "Each label before any perturbation, over the images in which it is known: AUROC and negative log-likelihood (nats); and "
        "how much farther noise in the leading eigenspace moves its probability than noise in its complement, over all norms.",
        (
            "label",
            "architecture",
            "with it",
            "without",
            "unknown",
            "AUROC [95 % interval]",
            "likelihood loss [95 % interval]",
            "moved farther by [95 % interval]",
        ),
        rows,
    )
