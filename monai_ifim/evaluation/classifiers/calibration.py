"""How well a classifier's probabilities are those of being right."""

from __future__ import annotations

import torch
from monai.metrics.calibration import calibration_binning
from torch import Tensor

__all__ = ["expected_calibration_error"]

BINS = 15  # as in Guo et al.


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Expected calibration error: mean over bins of |share that is right - mean probability| of the predicted class, by images.

    Source: C. Guo, G. Pleiss, Y. Sun and K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, equation 3;
    15 bins of equal width.

    Args:
        probabilities: [N, C].
        labels: of the right class, [N] or [N, 1] whole numbers, or one-hot [N, C].

    Raises:
        ValueError: where there are no images, or probabilities and labels are not of as many.
    """
    if not len(probabilities) or len(probabilities) != len(labels):
        raise ValueError(f"{len(probabilities)} probabilities and {len(labels)} labels: give as many of both, at least one")
    right = labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.flatten()
    confidence, predicted = probabilities.double().max(1)
    hits = (predicted == right).double()
    stated, found, counts = (
        each[0, 0].double() for each in calibration_binning(confidence[None, None], hits[None, None], num_bins=BINS)
    )
    return float(torch.nansum((stated - found).abs() * counts) / counts.sum())
