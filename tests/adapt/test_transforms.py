"""`IFIMDecompose` and its twin, and MONAI's own way back to the scanner's grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, SaveImaged
from torch import nn

import monai_ifim
from monai_ifim import IFIMDecompose, IFIMDecomposed, IFIMError, adapt, decompose

Array = npt.NDArray[Any]
ADDED = {"ifim_high", "ifim_low", "ifim_sensitivity", "ifim_eigenvectors", "ifim_eigenvalues", "ifim_rank"}


def test_array_twin_gives_the_values_of_core(data: dict[str, MetaTensor], make_network: Callable[..., nn.Module]) -> None:
    network, image = make_network(), data["image"]
    found = IFIMDecompose(network, rank=2)(image)
    expected = decompose(network, image.as_tensor()[None], rank=2)
    assert set(found) == ADDED | {"pred"}
    assert torch.equal(found["pred"], expected.logits[0])
    assert torch.equal(found["ifim_high"].as_tensor(), expected.high[0])
    assert torch.equal(found["ifim_low"].as_tensor(), expected.low[0])
    assert torch.equal(found["ifim_eigenvalues"], expected.eigenvalues[0])
    assert torch.equal(found["ifim_eigenvectors"].as_tensor(), expected.eigenvectors[0].flatten(0, 1))
    torch.testing.assert_close(found["ifim_sensitivity"].as_tensor().double(), expected.sensitivity[0], rtol=1e-6, atol=0)


def test_dictionary_twin_adds_what_the_array_twin_gives(
    data: dict[str, MetaTensor], make_network: Callable[..., nn.Module]
) -> None:
    network = make_network()
    array, dictionary = IFIMDecompose(network, rank=1)(data["image"]), IFIMDecomposed("image", network, rank=1)(data)
    assert set(dictionary) == ADDED | {"image"}
    for name in ADDED:
        assert torch.equal(torch.as_tensor(dictionary[name]), torch.as_tensor(array[name]))


def test_maps_carry_the_images_place_and_history(data: dict[str, MetaTensor], make_network: Callable[..., nn.Module]) -> None:
    image = data["image"]
    found = IFIMDecompose(make_network())(image)
    for name in ("ifim_high", "ifim_low", "ifim_sensitivity", "ifim_eigenvectors"):
        assert torch.equal(found[name].affine, image.affine)
        assert found[name].applied_operations == image.applied_operations


def test_data_of_the_caller_stay_unchanged(
    data: dict[str, MetaTensor], make_network: Callable[..., nn.Module], snapshot: Callable[..., Any]
) -> None:
    before = snapshot(data)
    IFIMDecomposed("image", make_network())(data)
    after = snapshot(data)
    assert set(after) == set(before)
    np.testing.assert_array_equal(after["image"][0], before["image"][0])
    assert after["image"][1:] == before["image"][1:]


def test_two_keys_without_prefixes_of_their_own_are_refused(make_network: Callable[..., nn.Module]) -> None:
    for prefix in ("ifim", ["one", "one"], ["one"]):
        with pytest.raises(IFIMError, match="give every key a prefix of its own"):
            IFIMDecomposed(["t1", "t2"], make_network(), prefix=prefix)


def test_two_keys_are_decomposed_each_under_its_prefix(
    data: dict[str, MetaTensor], make_network: Callable[..., nn.Module]
) -> None:
    pair = {"t1": data["image"], "t2": data["image"] * 2}
    found = IFIMDecomposed(["t1", "t2"], make_network(), prefix=["first", "second"])(pair)
    expected = IFIMDecompose(make_network())(pair["t2"])
    assert torch.equal(found["second_high"].as_tensor(), expected["ifim_high"].as_tensor())
    assert not torch.equal(found["first_high"].as_tensor(), expected["ifim_high"].as_tensor())
    assert {f"{prefix}_{name}" for prefix in ("first", "second") for name in ("low", "rank")} < set(found)


def test_a_missing_key_is_an_error_unless_allowed(data: dict[str, MetaTensor], make_network: Callable[..., nn.Module]) -> None:
    with pytest.raises(KeyError, match="label"):
        IFIMDecomposed("label", make_network())(data)
    assert set(IFIMDecomposed("label", make_network(), allow_missing_keys=True)(data)) == {"image"}


@pytest.mark.parametrize("name", ["IFIMDecompose", "SaveIFIM"])
def test_dictionary_twins_have_monais_aliases(name: str) -> None:
    twin = getattr(adapt, f"{name}d")
    assert getattr(adapt, f"{name}D") is twin
    assert getattr(adapt, f"{name}Dict") is twin
    assert getattr(monai_ifim, f"{name}d") is twin


def test_invertd_and_saveimaged_put_components_on_the_scanners_grid(
    scan: Path, tmp_path: Path, steps: Callable[..., Compose], make_network: Callable[..., nn.Module], oblique: Array
) -> None:
    keys = ["ifim_high", "ifim_low", "ifim_eigenvectors"]
    pre = steps()
    data = Compose([pre, IFIMDecomposed("image", make_network(), rank=2)])({"image": str(scan)})
    post = [Invertd(key, pre, orig_keys="image", nearest_interp=False, to_tensor=True) for key in keys]
    save = [SaveImaged(key, output_dir=tmp_path, output_postfix=key, separate_folder=False, print_log=False) for key in keys]
    Compose([*post, *save])(data)
    high, low, vectors = (nib.load(tmp_path / f"scan_{key}.nii.gz") for key in keys)
    source = nib.load(scan)
    for image in (high, low, vectors):
        assert image.shape[:3] == source.shape
        np.testing.assert_allclose(image.affine, oblique, rtol=0, atol=1e-3)
    assert vectors.shape[3:] in [(2,), (1, 2)]
    inside = (slice(4, -4),) * 3
    total = (high.get_fdata() + low.get_fdata())[inside]
    np.testing.assert_allclose(total, source.get_fdata()[inside], rtol=0, atol=0.02 * np.ptp(source.get_fdata()))
