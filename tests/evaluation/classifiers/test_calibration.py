"""The expected calibration error against its definition, bin by bin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_ifim.evaluation.classifiers.calibration import expected_calibration_error


def by_definition(confidence: np.ndarray, hits: np.ndarray, bins: int = 15) -> float:
    """Sum over bins of (images in the bin / images) |accuracy - confidence|."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [(place == b).mean() * abs(hits[place == b].mean() - confidence[place == b].mean()) for b in set(place.tolist())]
    return float(sum(gaps))


def test_it_is_the_weighted_gap_of_the_bins() -> None:
    generator = torch.Generator().manual_seed(4)
    p = torch.randn(211, 3, generator=generator).mul(2).softmax(1)
    labels = torch.randint(0, 3, (211,), generator=generator)
    confidence, predicted = p.double().max(1)
    wanted = by_definition(confidence.numpy(), (predicted == labels).double().numpy())
    assert expected_calibration_error(p, labels) == pytest.approx(wanted, abs=1e-6)
    one_hot = torch.nn.functional.one_hot(labels, 3)
    assert (
        expected_calibration_error(p, one_hot)
        == expected_calibration_error(p, labels[:, None])
        == pytest.approx(wanted, abs=1e-6)
    )


def test_sure_and_right_is_calibrated_and_sure_and_wrong_is_not() -> None:
    sure = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert expected_calibration_error(sure, torch.tensor([0, 1])) == 0
    assert expected_calibration_error(sure, torch.tensor([1, 0])) == 1


@pytest.mark.parametrize("labels", [torch.zeros(0), torch.zeros(3)])
def test_images_without_labels_are_refused(labels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="give as many of both"):
        expected_calibration_error(torch.ones(0 if len(labels) == 0 else 2, 2), labels)
