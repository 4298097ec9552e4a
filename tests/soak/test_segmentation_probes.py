"""diag F of a trained segmentation network on a real scan: eight random columns against five hundred and twelve others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, ScaleIntensity, Spacing
from torch import Tensor, nn

from monai_ifim import decompose

DILATIONS = (1, 2, 4, 8, 16, 8, 4, 2, 1)
SIZE = 64


@pytest.fixture(scope="module")
def meshnet(real_data: Path) -> nn.Sequential:
    """Grey and white matter of T1-weighted MRI, three classes at every voxel."""
    layers: list[nn.Module] = []
    for place, dilation in enumerate(DILATIONS):
        layers += [nn.Conv3d(1 if place == 0 else 5, 5, 3, padding=dilation, dilation=dilation), nn.ReLU()]
    network = nn.Sequential()
    network.layers = nn.Sequential(*layers, nn.Conv3d(5, 3, 1))
    weights = torch.load(real_data / "networks" / "meshnet_gw" / "model.pt", weights_only=True)
    network.load_state_dict(weights)
    return network.eval()


@pytest.fixture(scope="module")
def crop(real_data: Path) -> Tensor:
    """A part of a head that lies across the border of the brain, [1, 1, 64, 64, 64], voxels of 1 mm, values from 0 to 1."""
    steps = Compose([LoadImage(), EnsureChannelFirst(), Spacing((1.0, 1.0, 1.0)), ScaleIntensity()])
    scan = steps(real_data / "nifti" / "spm152.nii.gz")
    assert isinstance(scan, MetaTensor)
    starts = [size // 2 - place for size, place in zip(scan.shape[1:], (60, 32, 20), strict=True)]
    x, y, z = (slice(start, start + SIZE) for start in starts)
    return scan.as_subclass(Tensor)[None, :, x, y, z].float()


@pytest.mark.soak
def test_eight_columns_are_within_their_stated_error_of_many(meshnet: nn.Sequential, crop: Tensor) -> None:
    few = decompose(meshnet, crop, head="voxelwise")
    many = decompose(meshnet, crop, head="voxelwise", rank=1, probes=512, seed=1, verify="never")
    assert few.status == ("converged",)
    assert few.sensitivity_error is not None
    assert many.sensitivity_error is not None
    assert float((few.trace - many.trace).abs()) <= 2 * float((few.trace_error.square() + many.trace_error.square()).sqrt())
    torch.testing.assert_close(few.sensitivity.sum(), few.trace[0], rtol=1e-6, atol=0)
    away = (few.sensitivity - many.sensitivity).abs()
    inside = away <= 2 * (few.sensitivity_error.square() + many.sensitivity_error.square()).sqrt()
    assert 0.93 < float(inside.double().mean()) < 0.995
    assert float(few.eigenvalues.sum() / few.trace) < 0.3  # what the components alone would hold
