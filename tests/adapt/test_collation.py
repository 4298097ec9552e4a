"""Images that were padded to one size for a batch, and images whose ranks differ: each as it is alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch, pad_list_data_collate
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientationd, PadListDataCollate, SpatialPadd
from torch import nn

from monai_ifim import IFIMDecompose, IFIMDecomposed, IFIMHandler, IFIMInferer, SaveIFIM, SaveIFIMd, decompose
from monai_ifim.adapt.collation import at_own_size, margins_of_batch
from monai_ifim.adapt.transforms import MOST_PADDED

MAPS = ("ifim_high", "ifim_low", "ifim_sensitivity")
SHAPES = ((9, 12, 7), (6, 8, 11), (10, 7, 8))


@pytest.fixture
def preprocessing() -> Compose:
    """Reads, and turns the axes."""
    return Compose([LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", "PSR", labels=None)])


@pytest.fixture
def scans(tmp_path: Path, write_scan: Callable[..., Path], oblique: Any) -> list[dict[str, str]]:
    """Three scans of different sizes."""
    return [
        {"image": str(write_scan(tmp_path / "in" / f"scan{i}.nii.gz", shape, oblique, shift=0.3 * i))}
        for i, shape in enumerate(SHAPES)
    ]


def loader(scans: list[dict[str, str]], preprocessing: Compose, **padding: Any) -> DataLoader:
    """One batch of all scans."""
    return DataLoader(Dataset(scans, preprocessing), batch_size=len(scans), collate_fn=PadListDataCollate(**padding))


@pytest.mark.parametrize("method", ["symmetric", "end"])
def test_inferer_decomposes_each_image_at_its_own_size(
    method: str, scans: list[dict[str, str]], preprocessing: Compose, make_network: Callable[..., nn.Module]
) -> None:
    network = make_network()
    batch = next(iter(loader(scans, preprocessing, method=method)))["image"]
    found = IFIMInferer(rank=2, locality=True)(batch, network)
    assert found["ifim_high"].shape == batch.shape
    for scan, of_image, image in zip(scans, decollate_batch(found), decollate_batch(batch), strict=True):
        alone = preprocessing(scan)["image"]
        expected = decompose(network, alone.as_tensor()[None], rank=2)
        torch.testing.assert_close(of_image["pred"], expected.logits[0])
        torch.testing.assert_close(of_image["ifim_eigenvalues"], expected.eigenvalues[0])
        own, maps = at_own_size(image, of_image)
        assert torch.equal(own.as_tensor(), alone.as_tensor())
        torch.testing.assert_close(own.affine, alone.affine)
        assert [step["class"] for step in own.applied_operations] == [step["class"] for step in alone.applied_operations]
        torch.testing.assert_close(maps["ifim_high"], expected.high[0])
        torch.testing.assert_close(maps["ifim_eigenvectors"], expected.eigenvectors[0].flatten(0, 1))
        assert float(of_image["ifim_high"].as_tensor().abs().sum()) == pytest.approx(float(maps["ifim_high"].abs().sum()))


def test_monais_own_way_back_takes_the_padding_off_every_map(
    preprocessing: Compose, write_scan: Callable[..., Path], oblique: Any, make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    """With margins that are even: MONAI's inverse is a voxel off for some that are not."""
    network, shapes = make_network(), ((9, 12, 7), (7, 8, 11))
    scans = [{"image": str(write_scan(tmp_path / f"{i}.nii.gz", shape, oblique))} for i, shape in enumerate(shapes)]
    batch = next(iter(loader(scans, preprocessing)))
    found = IFIMInferer(rank=1)(batch["image"], network)
    for scan, of_image in zip(scans, decollate_batch({name: found[name] for name in MAPS}), strict=True):
        expected = decompose(network, preprocessing(scan)["image"].as_tensor()[None], rank=1)
        back = PadListDataCollate.inverse(of_image)
        torch.testing.assert_close(back["ifim_low"].as_tensor(), expected.low[0])
        torch.testing.assert_close(back["ifim_sensitivity"].as_tensor(), expected.sensitivity[0])


@pytest.mark.parametrize("space", ["native", "network"])
@pytest.mark.parametrize("method", ["symmetric", "end"])
def test_files_of_handler_and_inferer_are_those_of_the_single_images(
    space: Any,
    method: str,
    scans: list[dict[str, str]],
    preprocessing: Compose,
    make_network: Callable[..., nn.Module],
    tmp_path: Path,
) -> None:
    network, save = make_network(), {"space": space, "preprocessing": preprocessing}
    handler = IFIMHandler(rank=2, output_dir=tmp_path / "handler", **save)
    batches = loader(scans, preprocessing, method=method)
    SupervisedEvaluator(torch.device("cpu"), batches, network, val_handlers=[handler]).run()
    postprocessing = SaveIFIMd("pred", tmp_path / "inferer", **save)
    SupervisedEvaluator(torch.device("cpu"), batches, network, inferer=IFIMInferer(rank=2), postprocessing=postprocessing).run()
    for number, scan in enumerate(scans):
        image, name = preprocessing(scan)["image"], f"scan{number}"
        SaveIFIM(tmp_path / "alone", **save)(image, IFIMDecompose(network, rank=2)(image))
        expected = nib.load(tmp_path / "alone" / name / f"{name}_ifim_high.nii.gz")
        for folder in ("handler", "inferer"):
            found = nib.load(tmp_path / folder / name / f"{name}_ifim_high.nii.gz")
            np.testing.assert_allclose(found.affine, expected.affine, atol=1e-5)
            np.testing.assert_allclose(found.get_fdata(), expected.get_fdata(), rtol=1e-4, atol=1e-6)
            sidecar = json.loads((tmp_path / folder / name / f"{name}_ifim.json").read_text())
            alone = json.loads((tmp_path / "alone" / name / f"{name}_ifim.json").read_text())
            assert sidecar["eigenvalues"] == pytest.approx(alone["eigenvalues"], rel=1e-5)


def test_a_handler_that_tries_the_images_of_a_failing_batch_alone_does_so_at_their_own_size(
    scans: list[dict[str, str]], preprocessing: Compose, make_network: Callable[..., nn.Module], tmp_path: Path
) -> None:
    data = nib.load(scans[1]["image"])
    nib.save(nib.Nifti1Image(np.full(SHAPES[1], np.nan, dtype=np.float32), data.affine), scans[1]["image"])
    network = make_network()
    handler = IFIMHandler(rank=1, output_dir=tmp_path / "out", preprocessing=preprocessing, on_failure="record")
    SupervisedEvaluator(torch.device("cpu"), loader(scans, preprocessing), network, val_handlers=[handler]).run()
    assert [failure.case for failure in handler.failures] == ["scan1"]
    for name in ("scan0", "scan2"):
        image = preprocessing({"image": scans[int(name[-1])]["image"]})["image"]
        expected = decompose(network, image.as_tensor()[None], rank=1).eigenvalues[0].tolist()
        found = json.loads((tmp_path / "out" / name / f"{name}_ifim.json").read_text())["eigenvalues"]
        assert found == pytest.approx(expected, rel=1e-5)


def test_further_arguments_go_with_their_images(
    scans: list[dict[str, str]], preprocessing: Compose, make_network: Callable[..., nn.Module]
) -> None:
    network = make_network()
    batch = next(iter(loader(scans, preprocessing)))["image"]
    scales = torch.tensor([1.0, 2.0, 3.0])

    def scaled(image: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return network(image) * scale[:, None]

    found = IFIMInferer(head="categorical", rank=1)(batch, scaled, scales)
    for number, scan in enumerate(scans):
        expected = network(preprocessing(scan)["image"].as_tensor()[None])[0] * scales[number]
        torch.testing.assert_close(found["pred"][number], expected)


def test_padding_by_the_preprocessing_stays(
    scans: list[dict[str, str]], preprocessing: Compose, make_network: Callable[..., nn.Module]
) -> None:
    """It belongs to what the network was trained on."""
    padded = Compose([*preprocessing.transforms, SpatialPadd("image", (12, 12, 12))])
    batch = next(iter(DataLoader(Dataset(scans, padded), batch_size=3, collate_fn=pad_list_data_collate)))["image"]
    assert margins_of_batch(batch) is None
    assert margins_of_batch(torch.rand(2, 1, 4, 4)) is None
    network = make_network()
    expected = decompose(network, batch.as_tensor(), rank=1)
    torch.testing.assert_close(IFIMInferer(rank=1)(batch, network)["ifim_eigenvalues"], expected.eigenvalues)


@pytest.mark.parametrize("settings", [{"energy": 0.9}, {"rank": 2}, {"energy": 1.0}], ids=str)
def test_images_whose_ranks_differ_form_a_batch(settings: dict[str, Any], make_network: Callable[..., nn.Module]) -> None:
    network = make_network(2, 2, 4)
    with torch.no_grad():
        network[-1].weight *= 6
    generator = torch.Generator().manual_seed(3)
    images = [MetaTensor(torch.randn(2, 7, 9, generator=generator) * scale) for scale in (0.1, 2.0, 5.0, 0.0)]
    steps = IFIMDecomposed("image", network, head="categorical", **settings)
    batch = next(iter(DataLoader(Dataset([{"image": image} for image in images], steps), batch_size=4)))
    alone = [decompose(network, image.as_tensor()[None], head="categorical", **settings) for image in images]
    ranks = [int(each.rank) for each in alone]
    assert settings != {"energy": 0.9} or len(set(ranks)) > 1
    assert batch["ifim_rank"].tolist() == ranks
    for number, (rank, each) in enumerate(zip(ranks, alone, strict=True)):
        torch.testing.assert_close(batch["ifim_eigenvalues"][number, :rank], each.eigenvalues[0, :rank])
        assert not batch["ifim_eigenvalues"][number, rank:].any()
        vectors = batch["ifim_eigenvectors"][number].as_tensor().unflatten(0, (-1, 2))
        torch.testing.assert_close(vectors[:rank], each.eigenvectors[0, :rank])


def test_many_outputs_are_not_padded_unless_a_rank_is_asked() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, MOST_PADDED + 1)).eval()
    image = MetaTensor(torch.rand(1, 3, 4))
    assert len(IFIMDecompose(network, energy=0.5)(image)["ifim_eigenvalues"]) < 12
    assert len(IFIMDecompose(network, rank=20)(image)["ifim_eigenvalues"]) == 20
