"""Loaded images for the tests of MONAI's words."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    Orientation,
    Orientationd,
    Resize,
    Resized,
    Spacing,
    Spacingd,
)

Array = npt.NDArray[Any]
SHAPE = (21, 26, 17)
SIZE = (16, 18, 14)


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> Path:
    """An oblique, left-handed volume of odd, unequal sizes."""
    return write_scan(tmp_path / "in" / "scan.nii.gz", SHAPE, oblique)


@pytest.fixture
def steps() -> Callable[..., Compose]:
    """Dictionary preprocessing of one key or several: orientation, spacing, size."""

    def make(keys: str | list[str] = "image") -> Compose:
        return Compose(
            [
                LoadImaged(keys),
                EnsureChannelFirstd(keys),
                Orientationd(keys, axcodes="PSR", labels=None),
                Spacingd(keys, pixdim=(1.7, 2.1, 1.9), padding_mode="border"),
                Resized(keys, spatial_size=SIZE, mode="trilinear", align_corners=True),
            ]
        )

    return make


@pytest.fixture
def array_steps() -> Compose:
    """The same on arrays."""
    return Compose(
        [
            LoadImage(),
            EnsureChannelFirst(),
            Orientation(axcodes="PSR", labels=None),
            Spacing(pixdim=(1.7, 2.1, 1.9), padding_mode="border"),
            Resize(spatial_size=SIZE, mode="trilinear", align_corners=True),
        ]
    )


@pytest.fixture
def data(scan: Path, steps: Callable[..., Compose]) -> dict[str, MetaTensor]:
    """The preprocessed volume in a dictionary."""
    return dict(steps()({"image": str(scan)}))


@pytest.fixture(scope="session")
def snapshot() -> Callable[[Mapping[Hashable, Any]], dict[Hashable, Any]]:
    """What a data dictionary holds, to be compared later."""

    def take(data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {key: (np.array(value), value.affine.tolist(), len(value.applied_operations)) for key, value in data.items()}

    return take
