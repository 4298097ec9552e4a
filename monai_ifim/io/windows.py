"""Display windows: which values of a map are shown darkest and brightest."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE = 2**20  # voxels that percentiles are taken of

Window = tuple[float, float]

HOUNSFIELD = "Hounsfield units"
SOFT_TISSUE: Window = (-160.0, 240.0)  # level 40, width 400
SMALLEST_SHARE = 0.02
ROUNDING = 32 * float(
    np.finfo(np.float32).eps
)  # of an image's largest value: what single precision leaves of a part that is zero
FAINT = 0.01  # of the largest sensitivity: below it lies most of an image, and would set the scale


def display_window(content: str, values: npt.NDArray[Any], scan_unit: str = "", largest_of_image: float = 0.0) -> Window:
    """Low and high end of the window of a map, low < high, in the map's own values.

    content: what the sidecar calls it; scan_unit: of the scan itself, which in Hounsfield units is shown in the window of soft
    tissue unless hardly any of it lies there; largest_of_image: largest magnitude of the image that high is a part of, so that a
    high of nothing but rounding is shown as nothing. Signed maps (high, eigenvectors) get a window symmetric about zero, the
    99.9th percentile of |x|; sensitivity one from zero to the 99th percentile of what is not faint; images the 0.5th to the
    99.5th.
    """
    kind = content.partition(",")[0].partition(" ")[0]
    sample = _sample(values)
    if kind in ("high", "eigenvector"):
        largest = _percentile(np.abs(sample), 99.9) or float(np.abs(values).max(initial=0.0))
        largest = max(largest, ROUNDING * largest_of_image if kind == "high" else 0.0)
        return _opened(-largest, largest)
    if kind == "sensitivity":
        largest = float(values.max(initial=0.0))
        return _opened(0.0, _percentile(sample[sample > FAINT * largest], 99.0) or largest)
    if kind in ("source", "input") and scan_unit == HOUNSFIELD and _share_inside(sample, SOFT_TISSUE) > SMALLEST_SHARE:
        return SOFT_TISSUE
    low, high = _percentile(sample, 0.5), _percentile(sample, 99.5)
    if low == high:
        low, high = float(values.min(initial=low)), float(values.max(initial=high))
    return _opened(low, high)


def _sample(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every n-th voxel, n odd, so that it does not step along one plane of a grid of even sizes."""
    step = max(1, values.size // SAMPLE) | 1
    return values.ravel()[::step]


def _share_inside(values: npt.NDArray[Any], window: Window) -> float:
    return float(((values > window[0]) & (values < window[1])).mean()) if values.size else 0.0


def _percentile(values: npt.NDArray[Any], share: float) -> float:
    return float(np.percentile(values, share)) if values.size else 0.0


def _opened(low: float, high: float) -> Window:
    """A constant map still needs two ends."""
    if low < high:
        return low, high
    return low - 0.5, low + 0.5
