"""The scan in the scanner's own units, which viewers show below the components."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.io.geometry import Affine, same_grid
from monai_ifim.io.units import SCANNER_UNITS

LARGEST_INT16 = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan of one channel: values [*spatial] as the file states them, affine (voxel -> RAS mm), unit."""

    values: npt.NDArray[Any] = field(repr=False)
    affine: Affine
    unit: str = SCANNER_UNITS

    def lies_on(self, shape: tuple[int, ...], affine: Affine) -> bool:
        """True if the scan has this grid."""
        return self.values.shape == shape and same_grid(self.affine, affine, shape)

    def smallest(self) -> Scan:
        """A copy in int16 if that is lossless, else in float32, to save memory while the scan is decomposed."""
        values = self.values
        whole = float(values.min(initial=0)) >= -LARGEST_INT16 and float(values.max(initial=0)) <= LARGEST_INT16
        whole = whole and np.array_equal(values, np.rint(values))
        return replace(self, values=values.astype(np.int16 if whole else np.float32))
