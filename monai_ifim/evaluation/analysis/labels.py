"""Independent labels one by one: how well each is told, and how far perturbations move its probability."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped, unused-ignore]

from monai_ifim.evaluation.analysis.auroc import two_class_auroc
from monai_ifim.evaluation.analysis.curves import areas
from monai_ifim.evaluation.analysis.statistics import compare_paired, mean_intervals
from monai_ifim.evaluation.classifiers.labels import UNKNOWN
from monai_ifim.evaluation.measuring.end_points import CLAIM
from monai_ifim.evaluation.records import Estimate, LabelRecord, known

Array = npt.NDArray[np.float64]

__all__ = ["label_records"]


def label_records(
    measurements: pd.DataFrame, images: pd.DataFrame, names: Sequence[str], seed: int, resamples: int
) -> tuple[LabelRecord, ...]:
    """One record for each of independent labels; nothing for exclusive classes.

    measurements, images: of one cell, as `summarise_cell` takes them; names: of the labels. Images whose label is unknown are
    left out of its AUROC and likelihood, and counted; the effect of perturbations needs no truth.
    """
    if "label_probabilities" not in images or not images["label_probabilities"].map(lambda each: isinstance(each, list)).all():
        return ()
    scores = np.array(images["label_probabilities"].tolist(), dtype=np.float64)
    losses = np.array(images["label_losses"].tolist(), dtype=np.float64)  # None becomes NaN
    truth = [label if isinstance(label, list) else [UNKNOWN] * len(names) for label in images["label"]]
    labels = np.array(truth, dtype=np.int64)
    found = []
    for c, name in enumerate(names):
        told = labels[:, c] != UNKNOWN
        area, low, high = two_class_auroc(labels[told, c], scores[told, c], seed, resamples)
        [loss] = mean_intervals(losses[:, [c]], seed, resamples)
        found.append(
            LabelRecord(
                name=str(name),
                positive=int((labels[:, c] == 1).sum()),
                negative=int((labels[:, c] == 0).sum()),
                unknown=int((~told).sum()),
                auroc=Estimate(known(area), known(low), known(high), int(told.sum())),
                negative_log_likelihood=Estimate(known(loss.mean), known(loss.low), known(loss.high), loss.images),
                effect=_effect(measurements, f"p{c:02d}", seed, resamples),
            )
        )
    return tuple(found)


def _effect(measurements: pd.DataFrame, column: str, seed: int, resamples: int) -> Estimate:
    """How much farther the claim's first family moves the probability of a label than its second, averaged over the norms."""
    pair = measurements[measurements["family"].isin([CLAIM.first, CLAIM.second])]
    if column not in pair or pair["family"].nunique() < 2:
        return Estimate(None)
    still = pair[pair["relative_norm"] == 0].drop_duplicates("image").set_index("image")[column]
    moved = (pair[column] - pair["image"].map(still)).abs()
    table = areas(pair.assign(label_change=moved), "label_change")
    compared = compare_paired(table[CLAIM.first], table[CLAIM.second], seed, resamples)
    return Estimate(known(compared.difference), known(compared.low), known(compared.high), compared.images)
