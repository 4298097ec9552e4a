"""How well a network finds the lesions of `lesion_masks`: overlap, false positives, volumes and calibration, as plain data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import monai
import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_dice
from monai.metrics.calibration import calibration_binning
from monai.networks.utils import eval_mode
from torch import Tensor, nn

from monai_ifim.evaluation.lumpy.lesion_masks import VOXEL_ML, LesionMaskDataset
from monai_ifim.io.atomic import write_text

__all__ = ["segmentation_report", "write_report"]

BINS = 10  # of probability
DIGITS = 4

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Scores:
    """Of one volume. In ml: the truth, the voxels that are called lesion, and the sum of their probabilities.

    bins [3, BINS]: number of voxels, sum of their probabilities, and how many are lesion, by probability.
    """

    dice: float
    truth: float
    called: float
    expected: float
    bins: Array


def segmentation_report(
    network: nn.Module, dataset: LesionMaskDataset, prepare: Callable[[dict[str, Any]], dict[str, Any]], batch_size: int
) -> dict[str, Any]:
    """The figures of a network of two classes (0 background, 1 lesion; logits) on a set of volumes.

    A voxel is called lesion where that is the likelier class. The expected volume is the sum over voxels of the lesion's
    probability, times the volume of a voxel. Intervals are 95 % bootstrap over volumes.

    Args:
        network: takes images [B, 1, *shape] and gives logits [B, 2, *shape].
        dataset: an even number of volumes, half of them with a lesion.
        prepare: the preprocessing, from a data dictionary of the dataset to one whose "image" the network takes.
        batch_size: volumes that are computed together.

    Raises:
        ValueError: for a set without a volume of each kind.
    """
    if len(dataset) < 2:
        raise ValueError(f"a set of {len(dataset)} volumes; give two or more, so that there are some with and without a lesion")
    scores: list[_Scores] = []
    with eval_mode(network):
        for start in range(0, len(dataset), batch_size):
            items = [dataset[index] for index in range(start, min(start + batch_size, len(dataset)))]
            images = torch.stack([torch.as_tensor(prepare(dict(item))["image"]) for item in items])
            shares = network(images).softmax(1)[:, 1]
            scores += [_score(share, item["label"][0]) for share, item in zip(shares, items, strict=True)]
    return _summary(scores) | {
        "volumes": {"with_lesion": len(scores) // 2, "without_lesion": len(scores) - len(scores) // 2, "seed": dataset.seed},
        "task": asdict(dataset.parameters) | {"least_width": dataset.least_width, "voxel_ml": VOXEL_ML},
        "versions": {"torch": torch.__version__, "monai": monai.__version__},
    }


def write_report(path: str | PathLike[str], report: dict[str, Any]) -> None:
    """Write a report as JSON with a line a figure; the file appears whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, json.dumps(report, indent=1) + "\n", root=target.parent)


def _score(share: Tensor, mask: Tensor) -> _Scores:
    """Of the lesion's probability [*shape] at every voxel, and the mask [*shape]."""
    called = (share > 0.5).to(mask.dtype)
    dice = float(compute_dice(called[None, None], mask[None, None], ignore_empty=True))
    probability, frequency, count = (
        each[0, 0].double() for each in calibration_binning(share[None, None], mask[None, None], BINS)
    )
    sums = torch.stack([count, (count * probability).nan_to_num(), (count * frequency).nan_to_num()])
    truth, marked, expected = (VOXEL_ML * float(each.double().sum()) for each in (mask, called, share))
    return _Scores(dice, truth, marked, expected, sums.numpy())


def _summary(scores: list[_Scores]) -> dict[str, Any]:
    lesion, none = [s for s in scores if s.truth], [s for s in scores if not s.truth]
    return {
        "dice": _mean([s.dice for s in lesion]),
        "lesions_missed": _mean([s.dice == 0 for s in lesion]),
        "false_positives": {
            "volumes": _mean([s.called > 0 for s in none]),
            "called_ml": _mean([s.called for s in none]),
            "expected_ml": _mean([s.expected for s in none]),
        },
        "volume_ml": _mean([s.truth for s in lesion]),
        "volume_error_ml": {
            name: {"signed": _mean(errors), "absolute": _mean(np.abs(errors))}
            for name, errors in (
                ("called", [s.called - s.truth for s in lesion]),
                ("expected", [s.expected - s.truth for s in lesion]),
            )
        },
        "calibration": _calibration(np.sum([s.bins for s in scores], axis=0)),
    }


def _calibration(bins: Array) -> dict[str, Any]:
    """Frequency of the lesion among voxels by their probability; the expected error weighs the bins by their voxels."""
    filled = [(count, probability / count, frequency / count) for count, probability, frequency in bins.T if count]
    gaps = sum(count * abs(probability - frequency) for count, probability, frequency in filled)
    return {
        "expected_error": float(f"{gaps / bins[0].sum():.2g}"),
        "bins": [
            {"voxels": int(count), "probability": round(probability, DIGITS), "frequency": round(frequency, DIGITS)}
            for count, probability, frequency in filled
        ],
    }


def _mean(values: npt.ArrayLike) -> dict[str, Any]:
    """Mean, and its 95 % bootstrap interval (percentile) where the values differ."""
    from scipy.stats import bootstrap  # type: ignore[import-untyped, unused-ignore]

    sample = np.asarray(values, dtype=np.float64)
    mean = round(float(sample.mean()), DIGITS)
    if len(sample) < 2 or np.ptp(sample) == 0:
        return {"mean": mean, "interval": None}
    found = bootstrap(
        (sample,), np.mean, n_resamples=1000, confidence_level=0.95, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return {"mean": mean, "interval": [round(float(found.low), DIGITS), round(float(found.high), DIGITS)]}
