"""The affine of the network's input is foreseen without resampling, and is that of the preprocessing's output."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Affine,
    BorderPad,
    CenterSpatialCrop,
    Compose,
    CropForeground,
    CropForegroundd,
    DivisiblePadd,
    EnsureType,
    EnsureTyped,
    Flip,
    GaussianSmooth,
    Lambda,
    NormalizeIntensity,
    NormalizeIntensityd,
    Orientation,
    Orientationd,
    Resize,
    Resized,
    ResizeWithPadOrCrop,
    Rotate90,
    ScaleIntensityRangePercentilesd,
    Spacing,
    Spacingd,
    SpatialCrop,
    SpatialPad,
    SqueezeDim,
    Zoom,
)

from monai_ifim.adapt.scanner.preprocessing import ScanPreprocessing, scan_preprocessing
from monai_ifim.adapt.scanner.resolution import affine_after

FORESEEN: dict[str, Any] = {
    "nothing": [EnsureType()],
    "resized": [Resize((9, 8, 11)), NormalizeIntensity()],
    "longest side": [Resize(12, size_mode="longest")],
    "turned, spaced, padded, resized": [
        Orientationd("image", axcodes="PIR", labels=None),
        Spacingd("image", pixdim=(1.3, 0.9, 2.1)),
        ScaleIntensityRangePercentilesd("image", 1, 99, 0, 1, clip=True),
        DivisiblePadd("image", k=7),
        EnsureTyped("image"),
        Resized("image", spatial_size=(15, 17, 13)),
    ],
    "cropped, flipped": [SpatialCrop(roi_start=(2, 1, 3), roi_end=(11, 15, 12)), Flip(1), Rotate90(1, (0, 2)), GaussianSmooth(1)],
    "zoomed": [Zoom((1.4, 0.7, 1.1), keep_size=True), BorderPad((1, 2, 3))],
    "zoomed to another size": [Zoom((1.4, 0.7, 1.1), keep_size=False), CenterSpatialCrop((7, 9, 6))],
    "pad or crop": [Spacing((2.0, 1.5, -1)), ResizeWithPadOrCrop((14, 9, 21)), Orientation("LPS", labels=None)],
    "an affine map": [
        Affine(rotate_params=(0.2, -0.1, 0.3), scale_params=(1.1, 0.9, 1.2), spatial_size=(11, 12, 13), image_only=True)
    ],
    "resampled together": Compose([Orientation("LPS", labels=None), Spacing((1.1, 1.2, 2.0)), Resize((9, 7, 8))], lazy=True),
}
RUN: dict[str, Any] = {
    "cropped to what it shows": [Spacing((1.3, 1.3, 1.3)), CropForeground(), Resize((9, 8, 11))],
    "of dictionaries": [
        CropForegroundd("image", source_key="image", select_fn=lambda image: image > 300),
        NormalizeIntensityd("image"),
    ],
    "a function": [Lambda(lambda image: image[:, ::2]), SpatialPad((20, 20, 20))],
    "without its affine": [EnsureType(track_meta=False)],
    "one axis fewer": [SpatialCrop(roi_start=(0, 0, 4), roi_end=(99, 99, 5)), SqueezeDim(-1), Resize((8, 9))],
}


@pytest.fixture
def scan(oblique: Any) -> MetaTensor:
    """A block [1, 13, 17, 14] of whole numbers in an oblique frame, nothing around it."""
    values = torch.randint(1, 900, (1, 13, 17, 14), generator=torch.Generator().manual_seed(3)).float()
    values[:, :3], values[:, :, 15:], values[..., :2] = 0, 0, 0
    return MetaTensor(values, affine=torch.from_numpy(oblique))


def pipeline_of(steps: Any) -> ScanPreprocessing:
    return scan_preprocessing(steps if isinstance(steps, Compose) else Compose(steps))


@pytest.mark.parametrize("steps", [*FORESEEN.values(), *RUN.values()], ids=[*FORESEEN, *RUN])
def test_it_is_that_of_the_output(steps: Any, scan: MetaTensor) -> None:
    pipeline = pipeline_of(steps)
    affine = affine_after(pipeline, scan)
    output = pipeline(scan.clone()).affine.numpy()
    axes = len(output) - 1
    wanted = np.eye(4)
    wanted[:axes, :axes], wanted[:axes, 3] = output[:axes, :axes], output[:axes, axes]
    np.testing.assert_allclose(affine, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("steps", FORESEEN.values(), ids=FORESEEN)
def test_nothing_is_resampled_for_it(steps: Any, scan: MetaTensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any) -> Any:
        raise AssertionError("the preprocessing ran")

    monkeypatch.setattr(ScanPreprocessing, "__call__", run)
    affine_after(pipeline_of(steps), scan)


@pytest.mark.parametrize("steps", FORESEEN.values(), ids=FORESEEN)
def test_the_pipeline_and_the_scan_stay_as_they_are(steps: Any, scan: MetaTensor) -> None:
    pipeline, before = pipeline_of(steps), scan.clone()
    first = pipeline(scan.clone())
    affine_after(pipeline, scan)
    second = pipeline(scan.clone())
    torch.testing.assert_close(second, first, rtol=0, atol=0)
    torch.testing.assert_close(scan, before, rtol=0, atol=0)
    assert not scan.pending_operations
