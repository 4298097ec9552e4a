"""The report on networks whose figures are known, and against scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score
from torch import Tensor, nn

from monai_ifim.evaluation.lumpy.images import LumpyParameters
from monai_ifim.evaluation.lumpy.lesion_masks import VOXEL_ML, LesionMaskDataset
from monai_ifim.evaluation.lumpy.segmentation_report import segmentation_report, write_report

SOLID = LumpyParameters(shape=(9, 11, 10), mean_lumps=5, lump_width=2.0, lesion_amplitude=4.0, lesion_width=1.8, margin=3)
SET = LesionMaskDataset(SOLID, length=10, seed=5, least_width=1.0)
MASKS = torch.stack([SET[i]["label"][0] for i in range(len(SET))]).double()


class Answers(nn.Module):
    """Gives the lesion's probabilities [n, *shape] in turn, batch by batch."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.left = list(probabilities)

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([torch.logit(self.left.pop(0), eps=1e-12) for _ in images])
        return torch.stack([torch.zeros_like(logits), logits], dim=1)


def report(probabilities: Tensor) -> dict[str, Any]:
    return segmentation_report(Answers(probabilities), SET, lambda item: item, batch_size=3)


def test_the_truth_is_without_fault() -> None:
    found = report(MASKS)
    assert (found["dice"], found["lesions_missed"]["mean"]) == ({"mean": 1.0, "interval": None}, 0)
    assert found["false_positives"]["volumes"]["mean"] == found["volume_error_ml"]["called"]["absolute"]["mean"] == 0
    assert found["volume_error_ml"]["expected"]["signed"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["calibration"]["expected_error"] == pytest.approx(0, abs=1e-6)
    assert found["volumes"] == {"with_lesion": 5, "without_lesion": 5, "seed": 5}
    assert found["volume_ml"]["mean"] == pytest.approx(float(MASKS.sum()) * VOXEL_ML / 5, abs=1e-4)


def test_a_network_that_says_lesion_everywhere_is_caught_by_every_figure() -> None:
    found = report(torch.full_like(MASKS, 0.75))
    whole = MASKS[0].numel() * VOXEL_ML
    assert found["false_positives"]["volumes"]["mean"] == 1
    assert found["false_positives"]["called_ml"]["mean"] == pytest.approx(whole, abs=1e-4)
    assert found["false_positives"]["expected_ml"]["mean"] == pytest.approx(0.75 * whole, abs=1e-4)
    assert found["volume_error_ml"]["called"]["signed"]["mean"] == pytest.approx(whole - found["volume_ml"]["mean"], abs=2e-4)
    (only,) = found["calibration"]["bins"]
    assert (only["voxels"], only["probability"]) == (MASKS.numel(), 0.75)
    assert only["frequency"] == pytest.approx(float(MASKS.mean()), abs=1e-4)
    assert found["calibration"]["expected_error"] == pytest.approx(0.75 - float(MASKS.mean()), rel=0.01)


def test_figures_are_those_of_other_libraries() -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(MASKS.shape, dtype=torch.float64, generator=generator)
    probabilities = (0.6 * MASKS + 0.55 * noise).clamp(0.001, 0.999)
    found, lesions = report(probabilities), range(1, len(SET), 2)
    called = (probabilities > 0.5).double()
    dice = [f1_score(MASKS[i].ravel(), called[i].ravel()) for i in lesions]
    assert found["dice"]["mean"] == pytest.approx(np.mean(dice), abs=1e-4)
    low, high = found["dice"]["interval"]
    assert min(dice) - 1e-4 <= low < found["dice"]["mean"] < high <= max(dice) + 1e-4
    errors = [VOXEL_ML * float((probabilities[i] - MASKS[i]).sum()) for i in lesions]
    assert found["volume_error_ml"]["expected"]["signed"]["mean"] == pytest.approx(np.mean(errors), abs=1e-4)
    assert found["volume_error_ml"]["expected"]["absolute"]["mean"] == pytest.approx(np.mean(np.abs(errors)), abs=1e-4)
    frequency, probability = calibration_curve(MASKS.ravel(), probabilities.ravel(), n_bins=10)
    bins = found["calibration"]["bins"]
    np.testing.assert_allclose([each["frequency"] for each in bins], frequency, atol=1e-4)
    np.testing.assert_allclose([each["probability"] for each in bins], probability, atol=1e-4)
    assert sum(each["voxels"] for each in bins) == MASKS.numel()


def test_a_lesion_that_is_not_touched_is_missed() -> None:
    probabilities = MASKS.clone()
    probabilities[3] = 0
    assert report(probabilities)["lesions_missed"]["mean"] == 0.2


def test_a_set_without_both_kinds_is_refused() -> None:
    with pytest.raises(ValueError, match="give two or more"):
        segmentation_report(Answers(MASKS), LesionMaskDataset(SOLID, 1, 5, 1.0), lambda item: item, batch_size=3)


def test_the_report_is_a_file_of_plain_data(tmp_path: Path) -> None:
    found = report(MASKS)
    write_report(tmp_path / "docs" / "results.json", found)
    stored = json.loads((tmp_path / "docs" / "results.json").read_text(encoding="utf-8"))
    assert stored["dice"] == found["dice"]
    assert stored["task"]["shape"] == [9, 11, 10]
