"""NIfTI files that an option names: masks and noise maps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_ifim.io.errors import InputError, redacted, unquoted
from monai_ifim.io.geometry import Affine


def read_option_file(path: Path, refusal: Callable[[str], str]) -> tuple[npt.NDArray[Any], Affine]:
    """The values of a NIfTI file, float32, and its affine voxel -> RAS mm.

    Raises InputError with the text that `refusal` makes of the reason, where the file cannot be read.
    """
    try:
        image = nib.load(path)
        return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64)
    except Exception as error:  # nibabel raises many types for a damaged file
        raise InputError(refusal(unquoted(error))) from redacted(error)
