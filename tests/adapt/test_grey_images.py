"""Grey images in loops of others: handler, inferer and transforms decompose the one image that the channels were made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, pad_list_data_collate
from monai.engines import SupervisedEvaluator
from monai.inferers import SlidingWindowInferer
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImage,
    LoadImaged,
    MaskIntensityd,
    NormalizeIntensityd,
    RepeatChanneld,
    Resized,
    ScaleIntensityd,
)
from torch import Tensor, nn

from monai_ifim import IFIMDecomposed, IFIMError, IFIMHandler, IFIMInferer
from monai_ifim.adapt import GreyImages, SaveIFIMd, ScannerSpace
from monai_ifim.adapt.grey_images import BESIDE, MIXED, OTHER, UNREAD, UNREADABLE
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.adapt.tied_channels import APART, NOT_LOOKED_FOR, Tie
from monai_ifim.core.dense import dense_fisher
from monai_ifim.io import read_sidecar

Array = npt.NDArray[Any]
SIZE = (7, 5, 6)
MEAN, SPREAD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
FACTORS = (1.0, SPREAD[0] / SPREAD[1], SPREAD[0] / SPREAD[2])
READ = [LoadImaged("image"), EnsureChannelFirstd("image")]
SCALED = [ScaleIntensityd("image"), RepeatChanneld("image", 3), NormalizeIntensityd("image", MEAN, SPREAD, channel_wise=True)]
STEPS = Compose([*READ, Resized("image", SIZE, mode="trilinear"), *SCALED])


@pytest.fixture
def paths(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> list[Path]:
    shapes = {"a": (9, 6, 8), "b": (8, 7, 5)}
    return [write_scan(tmp_path / "in" / f"{name}.nii.gz", shape, oblique) for name, shape in shapes.items()]


@pytest.fixture
def network() -> nn.Module:
    """Takes images of any size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        layers = (nn.Conv3d(3, 5, 3, padding=1), nn.GELU(), nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(40, 4))
        return nn.Sequential(*layers).eval()


def of_grey(network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues and diagonal of T^T F T, dense, for one input [3, *spatial]; T has the factors of IMAGENET's spreads."""
    voxels = image[0].numel()
    spread = torch.kron(torch.tensor(FACTORS, dtype=torch.float64)[:, None], torch.eye(voxels, dtype=torch.float64))
    double = nn.Sequential(network).double()
    fisher = spread.T @ dense_fisher(double, image.as_subclass(Tensor)[None].double()) @ spread
    network.float()
    return torch.linalg.eigvalsh(fisher).flip(0)[:3], fisher.diagonal().reshape(1, *image.shape[1:])


def check(found: dict[str, Tensor], network: nn.Module, image: Tensor) -> None:
    """The components of one image without the batch axis against the dense matrix."""
    values, diagonal = of_grey(network, image)
    torch.testing.assert_close(found["ifim_eigenvalues"].as_subclass(Tensor)[:3].double(), values, rtol=2e-3, atol=0)
    ours = found["ifim_sensitivity"].as_subclass(Tensor).double()
    torch.testing.assert_close(ours, diagonal, rtol=2e-3, atol=1e-3 * float(diagonal.max()))
    torch.testing.assert_close((found["ifim_high"] + found["ifim_low"]).as_subclass(Tensor), image.as_subclass(Tensor)[:1])


def loader(paths: list[Path], steps: Any = STEPS, **settings: Any) -> DataLoader:
    return DataLoader(Dataset([{"image": str(path)} for path in paths], steps), batch_size=2, **settings)


def outputs(network: nn.Module, batches: DataLoader, handler: IFIMHandler | None = None, **settings: Any) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches,
        network=network,
        postprocessing=lambda item: seen.append(item) or item,
        **settings,
    )
    if handler is not None:
        handler.attach(evaluator)
    evaluator.run()
    return seen


def test_the_handler_decomposes_the_grey_image_and_writes_one_map(
    paths: list[Path], network: nn.Module, tmp_path: Path, oblique: Array
) -> None:
    handler = IFIMHandler(output_dir=tmp_path / "out", preprocessing=STEPS, energy=1.0)
    for item, path in zip(outputs(network, loader(paths), handler), paths, strict=True):
        check(item, network, STEPS({"image": str(path)})["image"])
        case = path.name.removesuffix(".nii.gz")
        sidecar = read_sidecar(tmp_path / "out" / case / f"{case}_ifim.json")
        np.testing.assert_allclose(sidecar["input"]["tied_channels"]["factors"], FACTORS, rtol=5e-6)
        written = nib.load(tmp_path / "out" / case / f"{case}_ifim_high.nii.gz")
        assert written.shape == nib.load(path).shape  # a map of one channel, on the scan's grid
        np.testing.assert_allclose(written.affine, nib.load(path).affine, atol=1e-4)


def test_the_handler_decomposes_each_channel_where_that_is_asked_for(
    paths: list[Path], network: nn.Module, tmp_path: Path
) -> None:
    handler = IFIMHandler(output_dir=tmp_path, preprocessing=STEPS, channels="each")
    for item in outputs(network, loader(paths), handler):
        assert item["ifim_high"].shape == (3, *SIZE)
    assert read_sidecar(tmp_path / "a" / "a_ifim.json")["settings"]["channels"] == "each"


def test_the_inferer_decomposes_the_grey_image_and_files_say_so(paths: list[Path], network: nn.Module, tmp_path: Path) -> None:
    inferer = IFIMInferer(grey=GreyImages(STEPS), energy=1.0)
    save = SaveIFIMd("pred", tmp_path, preprocessing=STEPS)
    for item, path in zip(outputs(network, loader(paths), inferer=inferer), paths, strict=True):
        check(item["pred"], network, STEPS({"image": str(path)})["image"])
        save(item)
    sidecar = read_sidecar(tmp_path / "b" / "b_ifim.json")
    np.testing.assert_allclose(sidecar["input"]["tied_channels"]["factors"], FACTORS, rtol=5e-6)


def test_the_transform_decomposes_the_grey_image(paths: list[Path], network: nn.Module) -> None:
    data = STEPS({"image": str(paths[0])})
    found = IFIMDecomposed("image", network, grey=GreyImages(STEPS), energy=1.0)(data)
    check(found, network, data["image"])
    assert found["ifim_eigenvectors"].shape == (4, *SIZE)  # padded to the number of outputs, a channel each


def test_padded_images_are_grey_images_at_their_own_size(paths: list[Path], network: nn.Module) -> None:
    steps = Compose([*READ, *SCALED])
    handler = IFIMHandler(preprocessing=steps, energy=1.0)
    items = outputs(network, loader(paths, steps, collate_fn=pad_list_data_collate), handler)
    for item, path in zip(items, paths, strict=True):
        image = steps({"image": str(path)})["image"]
        assert item["ifim_sensitivity"].shape == (1, 9, 7, 8)
        own = item["ifim_sensitivity"].as_subclass(Tensor)
        diagonal = of_grey(network, image)[1]
        assert torch.count_nonzero(own) <= diagonal.numel()
        torch.testing.assert_close(own.sum().double(), diagonal.sum(), rtol=2e-3, atol=0)


def test_arguments_and_windows_of_the_evaluator_reach_the_network(paths: list[Path], network: nn.Module) -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = network

        def forward(self, image: Tensor, weight: Tensor, *, gain: float) -> Tensor:
            return gain * weight[:, None] * self.backbone(image)

    def prepare(batch: Any, device: Any, non_blocking: bool, **_: Any) -> Any:
        return batch["image"], None, (torch.tensor([2.0, 0.5]),), {"gain": 3.0}

    items = outputs(Weighted().eval(), loader(paths), IFIMHandler(preprocessing=STEPS, energy=1.0), prepare_batch=prepare)
    for item, weight in zip(items, (6.0, 1.5), strict=True):
        scaled = nn.Sequential(network, Times(weight))
        check(item, scaled, STEPS({"image": item["image"].meta["filename_or_obj"]})["image"])

    voxels = nn.Conv3d(3, 2, 3, padding=1).eval()
    inferer = IFIMInferer(grey=GreyImages(STEPS), inferer=SlidingWindowInferer((4, 4, 4), 1, 0.5), head="volumes")
    [single] = outputs(voxels, loader(paths[:1]), inferer=inferer)
    assert single["pred"]["ifim_high"].shape == (1, *SIZE)


class Times(nn.Module):
    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits: Tensor) -> Tensor:
        return self.weight * logits


def batch_of(paths: list[Path], steps: Any) -> MetaTensor:
    batch: MetaTensor = next(iter(loader(paths, steps)))["image"]
    return batch


def test_why_channels_are_no_grey_image_is_said(paths: list[Path], tmp_path: Path) -> None:
    batch, grey = batch_of(paths, STEPS), GreyImages(STEPS)
    assert all(isinstance(tie, Tie) for tie in grey.of_batch(batch))
    assert grey.of_batch(batch[:, :1]) == [None, None]
    assert grey.of_batch(batch.as_subclass(Tensor)) == [UNREAD] * 2
    assert grey.of_batch(batch * 1.01) == [OTHER] * 2  # prepare_batch changed it
    assert GreyImages(Compose(SCALED)).of_batch(batch) == [UNREAD] * 2
    assert GreyImages(Compose([LoadImage()])).of_batch(batch) == [OTHER] * 2
    shifted = Compose([*READ, Resized("image", SIZE), Lambdad("image", lambda x: torch.cat([x, x.square()]))])
    assert GreyImages(shifted).of_batch(batch_of(paths, shifted)) == [APART] * 2
    masked = Compose([LoadImaged(["image", "mask"]), MaskIntensityd("image", mask_key="mask"), *STEPS.transforms[1:]])
    assert GreyImages(masked).of_batch(batch) == [BESIDE] * 2

    changed = batch.clone()
    changed[1] += 0.1
    assert grey.of_batch(changed) == [MIXED, OTHER]
    for path in paths:
        path.unlink()
    assert grey.of_batch(batch) == [UNREADABLE] * 2
    assert all(reason.startswith(NOT_LOOKED_FOR) for reason in (UNREAD, UNREADABLE, BESIDE))


def test_a_batch_without_grey_images_keeps_its_channels(paths: list[Path], network: nn.Module, tmp_path: Path) -> None:
    def prepare(batch: Any, device: Any, non_blocking: bool, **_: Any) -> Any:
        return batch["image"] * 1.01, None

    handler = IFIMHandler(output_dir=tmp_path, preprocessing=STEPS)
    for item in outputs(network, loader(paths), handler, prepare_batch=prepare):
        assert item["ifim_high"].shape == (3, *SIZE)
    stated = read_sidecar(tmp_path / "a" / "a_ifim.json")
    assert stated["input"]["tied_channels"]["factors"] is None
    assert OTHER in stated["input"]["tied_channels"]["meaning"]


def test_a_scan_has_the_channels_that_it_has(paths: list[Path], network: nn.Module) -> None:
    batch = batch_of(paths[:1], STEPS)
    scanner = ScannerSpace(STEPS, statistics="freeze")
    for inferer in (IFIMInferer(scanner=scanner, grey=GreyImages(STEPS)), IFIMInferer(scanner=scanner)):
        found = inferer(batch, network)
        assert found["ifim_high"].shape == (1, 1, 9, 6, 8)
        assert json.loads(found["ifim_high"].meta["ifim_record"][0])["tied_channels"] is None


def test_maps_of_each_channel_and_of_the_grey_image_are_not_asked_for_at_once() -> None:
    with pytest.raises(IFIMError, match="leave grey out"):
        IFIMInferer(CaseSettings(channels="each"), grey=GreyImages(STEPS))
