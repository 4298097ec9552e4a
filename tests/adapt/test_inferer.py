"""`IFIMInferer` inside MONAI's evaluator and by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.engines import SupervisedEvaluator
from monai.inferers import SimpleInferer
from monai.transforms import Compose, Lambdad
from torch import Tensor, nn

from monai_ifim import IFIMError, IFIMInferer, decompose

Array = npt.NDArray[Any]
KEYS = [
    "pred", "ifim_high", "ifim_low", "ifim_sensitivity", "ifim_eigenvectors", "ifim_eigenvalues", "ifim_rank",
]  # fmt: skip
MAPS = KEYS[1:5]


@pytest.fixture
def loader(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array, steps: Callable[..., Compose]) -> DataLoader:
    """Two volumes at different places in one batch."""
    other = oblique.copy()
    other[:3, 3] += (5.0, -8.0, 13.0)
    paths = [
        write_scan(tmp_path / "a.nii.gz", (21, 26, 17), oblique),
        write_scan(tmp_path / "b.nii.gz", (19, 23, 20), other, shift=0.4),
    ]
    return DataLoader(Dataset([{"image": str(path)} for path in paths], steps()), batch_size=2)


@pytest.fixture
def batch(loader: DataLoader) -> MetaTensor:
    return next(iter(loader))["image"]


class Conditioned(nn.Module):
    """Takes a second input a batch item and a scalar option."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor, shift: Tensor, *, gain: float = 1.0) -> Tensor:
        return gain * self.backbone(image * shift[:, None, None, None, None])


def collect(seen: list[dict[str, Any]]) -> Callable[[Any], Any]:
    def keep(value: Any) -> Any:
        seen.append(value)
        return value

    return keep


def test_inside_an_evaluator_every_image_gets_the_values_of_core(
    loader: DataLoader, batch: MetaTensor, make_network: Callable[..., nn.Module]
) -> None:
    network, seen = make_network(), []
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=network,
        inferer=IFIMInferer(rank=2),
        postprocessing=Compose([Lambdad("pred", collect(seen))]),
    ).run()
    expected = decompose(network, batch.as_tensor(), rank=2)
    assert [list(item) for item in seen] == [KEYS, KEYS]
    for b, item in enumerate(seen):
        torch.testing.assert_close(item["ifim_high"].as_tensor(), expected.high[b], rtol=0, atol=0)
        torch.testing.assert_close(item["ifim_low"].as_tensor(), expected.low[b], rtol=0, atol=0)
        torch.testing.assert_close(item["ifim_sensitivity"].as_tensor().double(), expected.sensitivity[b], rtol=1e-6, atol=0)
        torch.testing.assert_close(item["ifim_eigenvalues"], expected.eigenvalues[b])
        assert int(item["ifim_rank"]) == 2
        np.testing.assert_allclose(item["ifim_high"].affine, batch.affine[b], rtol=0, atol=0)


def test_eigenvectors_are_folded_component_by_component(batch: MetaTensor, make_network: Callable[..., nn.Module]) -> None:
    image = torch.cat([batch.as_tensor(), batch.as_tensor().square()], dim=1)
    network = make_network(channels=2)
    found = IFIMInferer(rank=2)(image, network)["ifim_eigenvectors"]
    expected = decompose(network, image, rank=2).eigenvectors
    assert found.shape == (2, 4, *image.shape[2:])
    for component in range(2):
        for channel in range(2):
            torch.testing.assert_close(found[:, 2 * component + channel].as_tensor(), expected[:, component, channel])


def test_maps_keep_affine_and_applied_operations_of_their_image(
    batch: MetaTensor, make_network: Callable[..., nn.Module]
) -> None:
    found = IFIMInferer()(batch, make_network())
    images = decollate_batch(batch)
    for name in MAPS:
        for single, image in zip(decollate_batch(found[name]), images, strict=True):
            torch.testing.assert_close(single.affine, image.affine, rtol=0, atol=0)
            assert [op["class"] for op in single.applied_operations] == ["Orientation", "SpatialResample", "Resize"]
            assert single.meta["filename_or_obj"] == image.meta["filename_or_obj"]
    assert not torch.equal(images[0].affine, images[1].affine)


@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_prediction_is_bit_identical_to_the_simple_inferers_in_any_mode(
    guard: Callable[[], Any], batch: MetaTensor, make_network: Callable[..., nn.Module]
) -> None:
    network = make_network()
    with guard():
        found, expected = IFIMInferer()(batch, network), SimpleInferer()(batch, network)
    assert torch.equal(found["pred"], expected.as_tensor())
    torch.testing.assert_close(found["ifim_high"].as_tensor(), decompose(network, batch.as_tensor()).high)


def test_further_arguments_reach_the_network(batch: MetaTensor, make_network: Callable[..., nn.Module]) -> None:
    network = Conditioned(make_network()).eval()
    shift = torch.tensor([0.5, 2.0])
    found = IFIMInferer(rank=2)(batch, network, shift, gain=1.5)
    plain = batch.as_tensor()
    for b in range(2):
        alone = decompose(network, plain[b : b + 1], rank=2, network_args=(shift[b : b + 1],), network_kwargs={"gain": 1.5})
        torch.testing.assert_close(found["ifim_eigenvalues"][b], alone.eigenvalues[0], rtol=1e-4, atol=0)
    torch.testing.assert_close(found["pred"], network(plain, shift, gain=1.5))


def test_an_evaluator_passes_what_prepare_batch_adds(loader: DataLoader, make_network: Callable[..., nn.Module]) -> None:
    network, seen = Conditioned(make_network()).eval(), []

    def prepare(batchdata: Any, *_: Any, **__: Any) -> tuple[Any, None, tuple[Tensor], dict[str, float]]:
        return batchdata["image"], None, (torch.tensor([0.5, 2.0]),), {"gain": 3.0}

    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        network=network,
        prepare_batch=prepare,
        inferer=IFIMInferer(),
        postprocessing=Lambdad("pred", collect(seen)),
    ).run()
    image = next(iter(loader))["image"].as_tensor()
    expected = network(image, torch.tensor([0.5, 2.0]), gain=3.0)
    torch.testing.assert_close(torch.stack([item["pred"] for item in seen]), expected)


def test_the_batch_is_left_as_it_was(batch: MetaTensor, make_network: Callable[..., nn.Module]) -> None:
    before, affine, meta = batch.as_tensor().clone(), batch.affine.clone(), set(batch.meta)
    IFIMInferer()(batch, make_network())
    assert torch.equal(batch.as_tensor(), before)
    assert torch.equal(batch.affine, affine)
    assert set(batch.meta) == meta
    assert batch.grad is None
    assert not batch.requires_grad


@pytest.mark.parametrize("settings", [{"energy": 0.0}, {"energy": 1.5}, {"rank": 0}, {"rank": 1.5}])
def test_impossible_settings_are_refused_at_once(settings: dict[str, Any]) -> None:
    with pytest.raises(IFIMError, match=next(iter(settings))):
        IFIMInferer(**settings)
