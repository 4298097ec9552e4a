"""Options of `monai-ifim decompose` that say in which unit, and how coarse, changes of the image are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def noise_level(noise: str | None) -> float | Tensor | None:
    """A number, or the map [channel, *spatial] in a NIfTI file, whose fourth axis holds channels; raises InputError for what is
    neither."""
    from monai_ifim.io import InputError

    if noise is None:
        return None
    try:
        return float(noise)
    except ValueError:
        pass
    import nibabel as nib
    import numpy as np
    import torch

    path = Path(noise)
    try:
        values = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    except Exception as error:
        raise InputError(f"--noise {path.name}: neither a number nor a NIfTI file that can be read ({error}).") from error
    return torch.from_numpy(np.moveaxis(values, 3, 0) if values.ndim == 4 else values[None])


def scanner_settings(space: str, statistics: str | None, resolution: str | None, noise: str | None) -> dict[str, Any]:
    """The fields of `RunSettings` for scanner space. Unless told otherwise, changes are as coarse as the network's voxels
    where they are not counted in noise."""
    if space == "scanner" and resolution is None and noise is None:
        resolution = "network"
    given = {"statistics": statistics, "resolution": resolution}
    return {name: value for name, value in given.items() if value is not None}
