"""Maps of one test image as planes through its most sensitive voxel, for the page."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from monai_ifim.display.windows import Window
from monai_ifim.io.geometry import LPS_TO_RAS, Affine
from monai_ifim.io.layers import Layer
from monai_ifim.io.planes import CasePlanes, cut_planes

__all__ = ["MAPS", "example_planes"]

# maps in the order of the page, with their units; images and attributions have none that is known
MAPS: Mapping[str, str] = {
    "image": "",
    "high": "",
    "low": "",
    "eigenvector": "",
    "sensitivity": "nats per squared unit",
    "integrated_gradients": "",
    "gradcam": "",
}
GREY = ("image", "low")  # share one grey window
CLIPPED = 0.5  # percent of the values at either end that a window leaves out


def example_planes(maps: Mapping[str, Tensor], affine: Affine | None) -> CasePlanes:
    """Planes of all maps [channel, *spatial], in the channel of the most sensitive voxel.

    affine: voxel index to RAS mm; None without a world frame: then rows run along the last spatial axis, as in a photograph.
    """
    sensitivity = maps["sensitivity"]
    channel, *place = (int(i) for i in np.unravel_index(int(sensitivity.argmax()), tuple(sensitivity.shape)))
    values = {name: maps[name][channel].double().cpu().numpy() for name in MAPS if name in maps}
    grey = np.concatenate([values[name].ravel() for name in GREY])
    layers = [
        Layer(name, value, _window(grey if name in GREY else value, name in GREY), MAPS[name]) for name, value in values.items()
    ]
    return cut_planes(layers, LPS_TO_RAS if affine is None else affine, place, photograph=affine is None)


def _window(values: npt.NDArray[np.float64], grey: bool) -> Window:
    """Percentiles for images, from 0 for maps without a negative value, symmetric about 0 for the others."""
    low, high = (float(end) for end in np.percentile(values, [CLIPPED, 100 - CLIPPED]))
    if grey:
        return (low, high) if low < high else (low, low + 1.0)
    if values.min() >= 0:
        return 0.0, high or float(values.max()) or 1.0
    top = float(np.percentile(np.abs(values), 100 - CLIPPED)) or float(np.abs(values).max())
    return -top, top
