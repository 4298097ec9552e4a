"""All methods agree on real scans, in eigenvalues and in projectors: the trained bundle, a thousand classes, a segmentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from monai.networks.nets import DenseNet, UNet
from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Resize, ScaleIntensity
from torch import Tensor, nn

from monai_ifim import Decomposition, decompose
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.io.installation import resolve_bundle


def _projector_distance(first: Tensor, second: Tensor) -> float:
    """Sine of the largest angle between two spans of orthonormal [k, channel, *spatial]."""
    a, b = first.flatten(1).double(), second.flatten(1).double()
    return float(torch.linalg.matrix_norm(a - (a @ b.T) @ b, 2))


def _assert_agree(found: Decomposition, truth: Decomposition, values: float, spans: float) -> None:
    assert found.rank.tolist() == truth.rank.tolist()
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues, rtol=values, atol=0)
    for b, rank in enumerate(truth.rank.tolist()):
        assert _projector_distance(found.eigenvectors[b, :rank], truth.eigenvectors[b, :rank]) < spans


@pytest.fixture(scope="module")
def slices(real_data: Path) -> Tensor:
    """Slices of a CT series and of two MR volumes, each [1, 1, 64, 64] in 0..1."""
    load = Compose([LoadImage(image_only=True), EnsureChannelFirst(), ScaleIntensity()])
    planes = [load(real_data / "nifti" / "MR_Gd.nii.gz")[..., 70], load(real_data / "nifti" / "spm152.nii.gz")[..., 100]]
    ct = sorted((real_data / "dicom" / "ct_plain").iterdir())[10]
    planes.append(load(ct)[..., 0])
    return torch.stack([Resize((64, 64))(plane).as_subclass(Tensor) for plane in planes])


@pytest.mark.parametrize("method", ["adaptive", "matrix_free"])
def test_trained_bundle_on_its_test_images(real_data: Path, method: str) -> None:
    bundle = load_bundle(resolve_bundle("mednist_classification"))
    entries = json.loads((real_data / "mednist" / "datalist.json").read_text())["testing"][::45]
    images = torch.stack([bundle.preprocess(real_data / entry["image"]).as_subclass(Tensor) for entry in entries])
    truth = decompose(bundle.network, images, method="exact", rank=3)
    found = decompose(bundle.network, images, method=method, rank=3, tolerance=1e-4)
    _assert_agree(found, truth, 1e-4, 2e-2)


@pytest.mark.soak
def test_thousand_classes(slices: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = DenseNet(2, 1, 1000, init_features=16, growth_rate=8, block_config=(2, 2, 2)).eval()
    truth = decompose(network, slices, method="exact", rank=5)
    free = decompose(network, slices, method="matrix_free", rank=5, tolerance=1e-3)
    assert free.record["jacobian_products"] < 120
    _assert_agree(free, truth, 1e-3, 5e-2)
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        layers[-1].bias += torch.cat([torch.linspace(25, 20, 8), torch.zeros(992)]) - network(slices)[0]
    truth = decompose(network, slices, method="exact", rank=4)
    peaked = decompose(network, slices, method="adaptive", rank=4, tolerance=1e-3)
    assert peaked.record["jacobian_products"] < 60
    _assert_agree(peaked, truth, 1e-3, 2e-2)


def test_segmentation_of_real_slices_agrees_with_the_sum_over_pixels(slices: Tensor) -> None:
    """The truth by products with F alone, made from PyTorch's own jvp and vjp: each found pair solves F u = l u."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = UNet(2, 1, 3, (8, 16), (2,)).double().eval()
    x = slices.double()
    d = decompose(network, x, head="voxelwise", rank=3, tolerance=1e-4)
    for b in range(x.shape[0]):
        image = x[b : b + 1]
        p = network(image).softmax(1).detach()
        for i in range(3):
            u, value = d.eigenvectors[b, i][None], d.eigenvalues[b, i]
            _, moved = torch.func.jvp(network, (image,), (u,))
            weighted = p * (moved - (p * moved).sum(1, keepdim=True))
            _, transpose = torch.func.vjp(network, image)
            residual = (transpose(weighted)[0] - value * u).norm()
            assert float(residual.detach()) <= 1e-4 * float(value)
