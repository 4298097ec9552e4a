"""Label maps of regions from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from monai_ifim.coordinates import Regions
from monai_ifim.io import InputError
from monai_ifim.io.option_file import read_option_file


def read_regions(file: str | None) -> tuple[Regions, ...]:
    """The regions in a NIfTI file, none without a file.

    Raises InputError where it cannot be read or is 4D, IFIMError for values that are no labels.
    """
    if file is None:
        return ()
    path = Path(file)
    values, affine = read_option_file(
        path, lambda reason: f"--regions {path.name}: not a readable NIfTI file ({reason}): give one of labels, 0 for no region."
    )
    if values.ndim not in (2, 3):
        raise InputError(f"--regions {path.name}: {values.ndim} axes: give one volume of labels, 0 for no region.")
    return (Regions(torch.from_numpy(np.ascontiguousarray(values)), affine=affine),)
