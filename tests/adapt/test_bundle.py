"""Bundles read from disk, and the reasons for which one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged
from PIL import Image
from pydicom.data import get_testdata_file
from torch import nn

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.native import carry_to_native, native_affine
from monai_ifim.io import InputError

MakeBundle = Callable[..., Path]


def edit_config(root: Path, **changes: Any) -> None:
    """Set entries of the inference config; None takes one out."""
    path = root / "configs" / "inference.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def prefixed(state: dict[str, Any]) -> dict[str, Any]:
    return {f"module.{name}": value for name, value in state.items()}


@pytest.mark.parametrize("config", ["inference.json", "inference.yaml", "inference.yml"])
def test_network_weights_and_metadata_come_from_the_bundle(
    config: str, tmp_path: Path, make_bundle: MakeBundle, make_network: Callable[..., nn.Module]
) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "tiny", config=config))
    image = torch.rand(2, 1, 9, 8, 7)
    torch.testing.assert_close(bundle.network(image), make_network()(image), rtol=0, atol=0)
    assert not any(module.training for module in bundle.network.modules())
    assert (bundle.channels, bundle.spatial_shape, bundle.spatial_dims, bundle.image_key) == (1, (9, 8, 7), 3, "image")
    assert bundle.identity.class_names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {"state_dict": state},
        lambda state: {"network": prefixed(state)},
        prefixed,
    ],
    ids=["model", "state_dict", "network and module.", "module."],
)
def test_weights_are_found_under_the_usual_names(
    wrap: Callable[[dict[str, Any]], Any], tmp_path: Path, make_bundle: MakeBundle, make_network: Callable[..., nn.Module]
) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "tiny", state=wrap))
    image = torch.rand(1, 1, 9, 8, 7)
    torch.testing.assert_close(bundle.network(image), make_network()(image), rtol=0, atol=0)


def test_reading_a_bundle_leaves_the_random_state(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    state = torch.random.get_rng_state()
    load_bundle(root)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_preprocessing_is_the_bundles_own(
    tmp_path: Path, make_bundle: MakeBundle, write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "tiny"))
    scan = write_scan(tmp_path / "scan.nii.gz", (11, 9, 13), oblique)
    expected = bundle.preprocessing({"image": str(scan)})["image"]
    found = bundle.preprocess(scan)
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    assert torch.equal(found.affine, expected.affine)
    assert found.shape == (1, 9, 8, 7)


def test_a_bundle_without_inference_config_is_refused(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    (root / "configs" / "inference.json").rename(root / "configs" / "train.json")
    with pytest.raises(InputError, match=r"bundle tiny: none of configs/inference\.json, configs/inference\.yaml"):
        load_bundle(root)


def test_a_bundle_with_modules_of_its_own_is_loaded_from_anywhere(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny", dims=2)
    (root / "tiny_scripts").mkdir()
    code = "import torch\n\ndef build(expression):\n    return eval(expression, {'torch': torch})\n"
    (root / "tiny_scripts" / "network.py").write_text(code, encoding="utf-8")
    expression = json.loads((root / "configs" / "inference.json").read_text())["network_def"].removeprefix("$")
    plain = load_bundle(root)
    edit_config(root, network_def={"_target_": "tiny_scripts.network.build", "expression": expression})
    image = torch.rand(2, 1, 12, 10)
    assert torch.equal(load_bundle(root).network(image), plain.network(image))


@pytest.mark.parametrize("name", ["network_def", "preprocessing"])
def test_a_missing_definition_is_named(name: str, tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    edit_config(root, **{name: None})
    with pytest.raises(InputError, match=f"bundle tiny: its inference config has no '{name}'"):
        load_bundle(root)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"network_def": "$3"}, "network_def is int, not a torch module"),
        ({"network_def": "$torch.nn.Linear(2)"}, "'network_def' cannot be built"),
        ({"network_def": {"_target_": "NoSuchNet"}}, "'network_def' cannot be built"),
        ({"preprocessing": "$[1, 2]"}, "preprocessing is list, not a Compose"),
        ({"preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Resize", "spatial_size": 4}]}}, "no LoadImaged"),
    ],
)
def test_a_definition_of_the_wrong_kind_is_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path, make_bundle: MakeBundle
) -> None:
    root = make_bundle(tmp_path / "tiny")
    edit_config(root, **changes)
    with pytest.raises(InputError, match=f"bundle tiny: .*{reason}"):
        load_bundle(root)


def test_a_config_that_is_no_json_is_refused_in_the_programs_words(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    (root / "configs" / "inference.json").write_text('{"network_def": ')
    with pytest.raises(InputError, match="tiny"):
        load_bundle(root)


def test_metadata_that_is_no_json_is_refused_in_the_programs_words(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    (root / "configs" / "metadata.json").write_text("{")
    with pytest.raises(InputError, match="metadata"):
        load_bundle(root)


def test_a_bundle_without_metadata_is_read(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    (root / "configs" / "metadata.json").unlink()
    bundle = load_bundle(root)
    assert (bundle.channels, bundle.spatial_dims, bundle.identity.name) == (None, None, "tiny")
    assert bundle.identity.class_names == ()


def test_a_bundle_without_weights_is_refused(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    (root / "models" / "model.pt").unlink()
    with pytest.raises(InputError, match=r"bundle tiny: no weights at models/model\.safetensors or models/model\.pt"):
        load_bundle(root)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {name: value for name, value in state.items() if "bias" not in name},
        lambda state: {**state, "extra.weight": torch.ones(2)},
        lambda state: {name: value[:1] for name, value in state.items()},
        lambda state: [1, 2, 3],
        lambda state: {"epoch": 3},
    ],
    ids=["missing", "too many", "other sizes", "a list", "no weights"],
)
def test_weights_that_do_not_fit_are_refused(spoil: Callable[..., Any], tmp_path: Path, make_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match=r"bundle tiny: models/model\.pt does not fit network_def"):
        load_bundle(make_bundle(tmp_path / "tiny", state=spoil))


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_pickled_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny", state=lambda state: {**state, "evil": Malicious(tmp_path / "ran")})
    with pytest.raises(InputError, match=r"bundle tiny: models/model\.pt holds no plain weights"):
        load_bundle(root)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_checkpoint_is_refused(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    weights = root / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes()[:700])
    with pytest.raises(InputError, match=r"models/model\.pt holds no plain weights"):
        load_bundle(root)


def test_a_single_dicom_slice_becomes_the_plane_that_a_2d_network_wants(tmp_path: Path, make_bundle: MakeBundle) -> None:
    path = str(get_testdata_file("CT_small.dcm", download=False))
    bundle = load_bundle(make_bundle(tmp_path / "tiny", dims=2))
    assert Compose([LoadImaged("image")])({"image": path})["image"].ndim == 3
    assert bundle.preprocess(Path(path)).shape == (1, 12, 10)


def test_a_colour_picture_is_refused_by_a_network_of_one_channel(tmp_path: Path, make_bundle: MakeBundle) -> None:
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "colour.png")
    bundle = load_bundle(make_bundle(tmp_path / "tiny", dims=2))
    with pytest.raises(InputError, match=r"colour\.png: 3 channel\(s\).*takes 1.*grey"):
        bundle.preprocess(tmp_path / "colour.png")


def test_a_picture_is_refused_by_a_network_of_volumes(tmp_path: Path, make_bundle: MakeBundle) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "flat.png")
    bundle = load_bundle(make_bundle(tmp_path / "tiny"))
    with pytest.raises(InputError, match=r"flat\.png: .*takes 3"):
        bundle.preprocess(tmp_path / "flat.png")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, make_bundle: MakeBundle) -> None:
    (tmp_path / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(InputError, match=r"cut\.nii\.gz: cannot be read"):
        load_bundle(make_bundle(tmp_path / "tiny")).preprocess(tmp_path / "cut.nii.gz")


def test_the_example_is_seeded_and_of_the_stated_shape(tmp_path: Path, make_bundle: MakeBundle) -> None:
    bundle = load_bundle(make_bundle(tmp_path / "tiny"))
    state = torch.random.get_rng_state()
    first, second = bundle.example(None), bundle.example(None)
    assert first.shape == (1, 9, 8, 7)
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_example_is_asked_for_where_no_shape_is_stated(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    (root / "configs" / "metadata.json").unlink()
    with pytest.raises(InputError, match="states no input shape; give an image"):
        load_bundle(root).example(None)


def test_preprocessing_that_loses_the_trace_is_refused_with_the_cure(
    tmp_path: Path, make_bundle: MakeBundle, write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
        {"_target_": "EnsureTyped", "keys": "image", "track_meta": False},
    ]
    bundle = load_bundle(make_bundle(tmp_path / "tiny", steps=steps))
    with pytest.raises(InputError, match="gives no MetaTensor under 'image': keep track_meta on"):
        bundle.preprocess(write_scan(tmp_path / "scan.nii.gz", (11, 6, 8), oblique))


def test_preprocessing_that_only_reads_gives_the_file_itself(
    tmp_path: Path, make_bundle: MakeBundle, write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    steps = [{"_target_": name, "keys": "image"} for name in ("LoadImaged", "EnsureChannelFirstd")]
    bundle = load_bundle(make_bundle(tmp_path / "tiny", steps=steps))
    scan = write_scan(tmp_path / "scan.nii.gz", (9, 8, 7), oblique)
    np.testing.assert_array_equal(bundle.preprocess(scan)[0].numpy(), nib.load(scan).get_fdata(dtype=np.float32))


def test_further_inputs_of_no_stated_size_are_named(tmp_path: Path, make_bundle: MakeBundle) -> None:
    root = make_bundle(tmp_path / "tiny")
    path = root / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["network_data_format"]["inputs"]["table"] = {"num_channels": 5, "spatial_shape": ["n"]}
    path.write_text(json.dumps(metadata))
    bundle = load_bundle(root)
    assert bundle.further == (("table", (5, "n")),)
    with pytest.raises(InputError, match=r"states no sizes for input 'table': \(5, 'n'\)"):
        bundle.further_examples()


def test_preprocessing_may_change_the_number_of_channels(
    tmp_path: Path, make_bundle: MakeBundle, write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "RepeatChanneld", "keys": "image", "repeats": 2},
        {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
    ]
    bundle = load_bundle(make_bundle(tmp_path / "tiny", channels=2, steps=steps))
    assert bundle.preprocess(write_scan(tmp_path / "scan.nii.gz", (11, 6, 8), oblique)).shape == (2, 9, 8, 7)


def test_conversion_to_a_tensor_does_not_hinder_the_native_grid(
    tmp_path: Path, make_bundle: MakeBundle, write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "ToTensord", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8, 7]},
        {"_target_": "ToTensord", "keys": "image"},
    ]
    bundle = load_bundle(make_bundle(tmp_path / "tiny", steps=steps))
    image = bundle.preprocess(write_scan(tmp_path / "scan.nii.gz", (11, 6, 8), oblique))
    maps = carry_to_native(image.as_tensor(), image, bundle.preprocessing, "image")
    assert maps.shape == (1, 11, 6, 8)
    np.testing.assert_allclose(native_affine(image), oblique, atol=1e-4)


def test_a_failing_step_is_named_by_its_cause(
    tmp_path: Path, make_bundle: MakeBundle, write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    steps: list[dict[str, Any]] = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Resized", "keys": "image", "spatial_size": [9, 8]},
    ]
    bundle = load_bundle(make_bundle(tmp_path / "tiny", steps=steps))
    with pytest.raises(InputError, match=r"scan\.nii\.gz: the preprocessing .* fails \((?!applying)"):
        bundle.preprocess(write_scan(tmp_path / "scan.nii.gz", (11, 6, 8), oblique))
