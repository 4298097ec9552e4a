"""Display windows: the values of a map that are shown darkest and brightest, on every page, plot, viewer, scene and log."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FAINT", "ROUNDING", "SAMPLE", "SOFT_TISSUE", "Window", "bar_shape", "beyond", "display_window"]

POINT = "0.6em"  # length of the pointed end of a colour bar
SAMPLE = 2**20  # number of voxels that percentiles are computed from

Window = tuple[float, float]

SOFT_TISSUE: Window = (-160.0, 240.0)  # level 40, width 400
SMALLEST_SHARE = 0.02
ROUNDING = 32 * float(np.finfo(np.float32).eps)  # share of an image's largest value below which a part is single-precision noise
FAINT = 0.01  # share of the largest sensitivity below which voxels are left out of the percentile


def display_window(kind: str, values: npt.NDArray[Any], hounsfield: bool = False, largest_of_image: float = 0.0) -> Window:
    """Low and high end of the window of a map, low < high, in the map's own values.

    kind: one of `io.maps.KINDS`; values: of the map, but for low of the image that it is a part of, so that both share a window;
    hounsfield: whether an image is in Hounsfield units: its window is then that of soft tissue, unless hardly any voxel lies in
    it; largest_of_image: largest magnitude of the image that high is a part of, so that a high of mere rounding is shown as zero.
    Signed maps (high, eigenvectors) get a window symmetric about zero, up to the 99.9th percentile of |x|; sensitivity and its
    error one from zero to the 99th percentile of the values that are not faint; images from the 0.5th to the 99.5th.
    """
    sample = _sample(values)
    if kind in ("high", "eigenvector"):
        largest = _percentile(np.abs(sample), 99.9) or float(np.abs(values).max(initial=0.0))
        largest = max(largest, ROUNDING * largest_of_image if kind == "high" else 0.0)
        return (-largest, largest) if largest > 0 else (-1.0, 1.0)
    if kind in ("sensitivity", "sensitivity_error"):
        largest = float(values.max(initial=0.0))
        return 0.0, _percentile(sample[sample > FAINT * largest], 99.0) or largest or 1.0
    if hounsfield and _share_inside(sample, SOFT_TISSUE) > SMALLEST_SHARE:
        return SOFT_TISSUE
    low, high = _percentile(sample, 0.5), _percentile(sample, 99.5)
    if low == high:
        low, high = float(values.min(initial=low)), float(values.max(initial=high))
    return _opened(low, high)


def beyond(values: npt.NDArray[Any], window: Window) -> tuple[bool, bool]:
    """Whether values lie below a window, and whether some lie above it.

    >>> beyond(np.array([-1.0, 0.5]), (0.0, 1.0))
    (True, False)
    """
    return bool(values.min() < window[0]), bool(values.max() > window[1])


def bar_shape(below: bool, above: bool) -> str:
    """CSS's clip-path of a horizontal colour bar whose ends are pointed where values lie below or above the window.

    >>> bar_shape(False, True)
    'polygon(0 0, calc(100% - 0.6em) 0, 100% 50%, calc(100% - 0.6em) 100%, 0 100%, 0 50%)'
    """
    left, right = (POINT if below else "0"), (f"calc(100% - {POINT})" if above else "100%")
    return f"polygon({left} 0, {right} 0, 100% 50%, {right} 100%, {left} 100%, 0 50%)"


def _sample(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Every n-th voxel; n is odd, so that on a grid of even sizes the samples do not all lie in one plane."""
    step = max(1, values.size // SAMPLE) | 1
    return values.ravel()[::step]


def _share_inside(values: npt.NDArray[Any], window: Window) -> float:
    return float(((values > window[0]) & (values < window[1])).mean()) if values.size else 0.0


def _percentile(values: npt.NDArray[Any], share: float) -> float:
    return float(np.percentile(values, share)) if values.size else 0.0


def _opened(low: float, high: float) -> Window:
    """The window; of a constant map one of width 1."""
    if low < high:
        return low, high
    return low - 0.5, low + 0.5
