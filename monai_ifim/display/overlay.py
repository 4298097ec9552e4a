"""A sensitivity map drawn over the image it belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from monai_ifim.display.style import SEQUENTIAL

STRENGTH = 0.75  # opacity of the map's colour where it is largest: the image stays visible under it

Values = npt.NDArray[np.float64]


def overlay(image: Values, sensitivity: Values) -> Values:
    """RGB picture [rows, columns, 3] from 0 to 1 of two pictures [rows, columns] from 0 to 1.

    The image is grey; the colour of the map is the more opaque the larger its value, and absent where it is zero.
    """
    from matplotlib import colormaps

    grey = np.clip(image, 0.0, 1.0)[..., None]
    strength = np.clip(sensitivity, 0.0, 1.0)
    colors: Values = colormaps[SEQUENTIAL](strength)[..., :3]
    opacity = STRENGTH * strength[..., None]
    blended: Values = (1 - opacity) * grey + opacity * colors
    return blended
