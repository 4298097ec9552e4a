"""The segmentation beside the components of inferer and transforms, in batches and on the way back to the scan's grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Orientationd, PadListDataCollate
from torch import nn

from monai_ifim import IFIMDecomposed, IFIMInferer, SaveIFIMd

Array = npt.NDArray[Any]
SHAPES = ((9, 8, 7), (6, 10, 7))


def segmenter(channels: int = 3) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.GELU(), nn.Conv3d(4, channels, 1)).eval()


@pytest.fixture
def preprocessing() -> Compose:
    return Compose([LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", "PSR", labels=None)])


@pytest.fixture
def scans(tmp_path: Path, write_scan: Callable[..., Path], oblique: Array) -> list[dict[str, str]]:
    return [{"image": str(write_scan(tmp_path / "in" / f"s{i}.nii.gz", shape, oblique))} for i, shape in enumerate(SHAPES)]


@pytest.mark.parametrize("head", ["volumes", "volumes_bernoulli"])
def test_labels_of_a_padded_batch_are_those_of_each_image_and_invert_to_its_scan(
    scans: list[dict[str, str]], preprocessing: Compose, oblique: Array, head: str
) -> None:
    network = segmenter()
    batch = next(iter(DataLoader(Dataset(scans, preprocessing), batch_size=2, collate_fn=PadListDataCollate())))
    found = IFIMInferer(head=head)(batch["image"], network)
    assert found["ifim_labels"].shape == (2, 1, *batch["image"].shape[2:])
    items = decollate_batch(batch | {"labels": found["ifim_labels"]})
    back = Invertd("labels", preprocessing, orig_keys="image", nearest_interp=True, to_tensor=True)
    for scan, shape, item in zip(scans, SHAPES, items, strict=True):
        alone = preprocessing(scan)["image"].as_tensor()
        with torch.no_grad():
            logits = network(alone[None])[0]
        wanted = logits.argmax(0) if head == "volumes" else torch.where(logits.amax(0) > 0, logits.argmax(0) + 1, 0)
        assert len(wanted.unique()) > 1
        inverted = back(PadListDataCollate.inverse(item))["labels"]
        assert inverted.shape == (1, *shape)
        np.testing.assert_allclose(inverted.affine, oblique, atol=1e-4)
        turned = Orientationd("labels", "PSR", labels=None)({"labels": inverted})["labels"]
        assert torch.equal(turned.as_tensor()[0].to(torch.int64), wanted)


def test_files_of_the_dictionary_transform_hold_the_labels(
    tmp_path: Path, scans: list[dict[str, str]], preprocessing: Compose
) -> None:
    network, data = segmenter(1), preprocessing(scans[0])
    with torch.no_grad():
        network[2].bias -= network(data["image"].as_tensor()[None]).median()
    made = IFIMDecomposed("image", network, head="volumes_bernoulli")(data)
    names = ("not ill", "ill")
    SaveIFIMd("image", tmp_path / "out", preprocessing=preprocessing, class_names=names)(made)
    labels = np.asarray(nib.load(tmp_path / "out" / "s0" / "s0_ifim_labels.nii.gz").dataobj)
    with torch.no_grad():
        above = (network(data["image"].as_tensor()[None])[0, 0] > 0).numpy()
    assert labels.sum() == above.sum()
    assert 0 < above.mean() < 1
    table = (tmp_path / "out" / "s0" / "s0_labels.ctbl").read_text(encoding="utf-8")
    assert "1 ill 230 159 0 255" in table


def test_classifiers_have_no_labels(
    scans: list[dict[str, str]], preprocessing: Compose, make_network: Callable[..., nn.Module]
) -> None:
    made = IFIMDecomposed("image", make_network())(preprocessing(scans[0]))
    assert "ifim_high" in made
    assert "ifim_labels" not in made
