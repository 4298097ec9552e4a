"""The bundle mednist_classification: its files agree, its weights load, and its stated accuracy holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, load_decathlon_datalist
from monai.transforms import Compose, Invertd
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from monai_ifim.evaluation.classifiers.calibration import expected_calibration_error

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "mednist_classification"
CONFIGS = BUNDLE / "configs"
WEIGHTS = BUNDLE / "models" / "model.pt"
CLASS_NAMES = ["AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"]

INFERENCE_KEYS = [
    "bundle_root",
    "device",
    "dataset_dir",
    "output_dir",
    "network_def",
    "network",
    "preprocessing",
    "dataset",
    "dataloader",
    "inferer",
    "postprocessing",
    "handlers",
    "evaluator",
    "initialize",
    "run",
]
TRAIN_KEYS = [
    "bundle_root",
    "device",
    "dataset_dir",
    "network_def",
    "train#preprocessing",
    "train#dataset",
    "train#dataloader",
    "train#inferer",
    "train#key_metric",
    "train#handlers",
    "train#trainer#max_epochs",
    "validate#preprocessing",
    "validate#dataset",
    "validate#dataloader",
    "validate#inferer",
    "validate#key_metric",
    "validate#handlers",
    "validate#evaluator",
    "initialize",
    "run",
]
METADATA_KEYS = [
    "schema",
    "version",
    "changelog",
    "monai_version",
    "pytorch_version",
    "numpy_version",
    "required_packages_version",
    "task",
    "description",
    "authors",
    "copyright",
    "network_data_format",
]


def parsed(*names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    parser["bundle_root"] = str(BUNDLE)
    return parser


def metadata() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))
    return content


def trained_network() -> torch.nn.Module:
    network = parsed("inference.yaml").get_parsed_content("network_def")
    network.load_state_dict(torch.load(WEIGHTS, map_location="cpu", weights_only=True))
    assert isinstance(network, torch.nn.Module)
    return network.eval()


def preprocessing() -> Compose:
    compose = parsed("inference.yaml").get_parsed_content("preprocessing")
    assert isinstance(compose, Compose)
    return compose


def ramp_jpeg(folder: Path) -> Path:
    """A grey 90 x 70 picture that gets brighter to the right and has a dark lower left quarter."""
    rows = np.tile(np.linspace(60, 250, 90), (70, 1))
    rows[35:, :45] = 0
    path = folder / "ramp.jpeg"
    Image.fromarray(rows.astype(np.uint8)).save(path, quality=95)
    return path


def ct_slice() -> Path:
    return Path(str(get_testdata_file("CT_small.dcm", download=False)))


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["inference.yaml"], INFERENCE_KEYS),
        (["train.yaml"], TRAIN_KEYS),
        (["train.yaml", "evaluate.yaml"], TRAIN_KEYS),
        (["train.yaml", "train_download.yaml"], TRAIN_KEYS),
    ],
)
def test_configs_have_the_customary_keys(names: list[str], keys: list[str]) -> None:
    parser = parsed(*names)
    assert [key for key in keys if key not in parser] == []


def test_metadata_has_what_the_schema_requires() -> None:
    content = metadata()
    assert [key for key in METADATA_KEYS if key not in content] == []
    assert content["version"] in content["changelog"]
    image = content["network_data_format"]["inputs"]["image"]
    assert (image["num_channels"], image["spatial_shape"], image["dtype"]) == (1, [64, 64], "float32")


def test_class_names_agree() -> None:
    channels = metadata()["network_data_format"]["outputs"]["pred"]["channel_def"]
    inference = parsed("inference.yaml")
    assert [channels[str(k)] for k in range(len(channels))] == CLASS_NAMES
    assert inference["class_names"] == CLASS_NAMES
    assert parsed("train.yaml")["class_names"] == CLASS_NAMES
    assert inference["network_def#out_channels"] == len(CLASS_NAMES)


def test_training_and_inference_share_network_and_preprocessing() -> None:
    inference, train = parsed("inference.yaml"), parsed("train.yaml")
    assert train["network_def"] == inference["network_def"]
    assert train["train#deterministic_transforms"] == inference["preprocessing#transforms"]
    assert train["validate#preprocessing#transforms"] == "%train#deterministic_transforms"


def test_files_name_no_absolute_path() -> None:
    machine_path = re.compile(r"""(^|[\s'"=(])(/(home|root|tmp|mnt|data|work\w*|opt|Users)/|~/|[A-Za-z]:\\)""", re.MULTILINE)
    for path in [*CONFIGS.iterdir(), *(BUNDLE / "docs").iterdir()]:
        assert machine_path.search(path.read_text(encoding="utf-8")) is None, path.name


def test_weights_are_small_float32_and_finite() -> None:
    assert WEIGHTS.stat().st_size < 5_000_000
    state = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    assert sum(p.numel() for p in trained_network().parameters()) < 1_200_000


def test_an_image_is_classified_on_its_own() -> None:
    network = trained_network()
    batch = torch.rand(5, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(batch)[2:3], network(batch[2:3]), rtol=1e-4, atol=1e-5)


def test_jpeg_and_dicom_arrive_in_the_same_orientation(tmp_path: Path) -> None:
    jpeg = ramp_jpeg(tmp_path)
    load = Compose(preprocessing().transforms[:3])
    rows = np.asarray(Image.open(jpeg))
    np.testing.assert_array_equal(load({"image": str(jpeg)})["image"].numpy()[0], rows.T)
    file = dcmread(ct_slice())
    hounsfield = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
    np.testing.assert_array_equal(load({"image": str(ct_slice())})["image"].numpy()[0], hounsfield.T)


def test_maps_go_back_to_the_grid_of_the_input(tmp_path: Path) -> None:
    compose = preprocessing()
    invert = Invertd(keys="pred", transform=compose, orig_keys="image", nearest_interp=False)
    load = Compose(compose.transforms[:3])
    for path, shape in [(ct_slice(), (1, 128, 128)), (ramp_jpeg(tmp_path), (1, 90, 70))]:
        data = compose({"image": str(path)})
        assert data["image"].shape == (1, 64, 64)
        assert (float(data["image"].min()), float(data["image"].max())) == (0.0, 1.0)
        data["pred"] = MetaTensor(data["image"].as_tensor().clone())
        native, loaded = invert(data)["pred"], load({"image": str(path)})["image"]
        assert native.shape == shape
        torch.testing.assert_close(native.affine, loaded.affine, rtol=0, atol=1e-6)
        assert np.corrcoef(native.numpy().ravel(), loaded.numpy().ravel())[0, 1] > 0.95


@pytest.mark.soak
def test_training_without_data_says_which_variable_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "IFIM_TEST_DATA"}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/train.yaml", "--bundle_root", "."]
    done = subprocess.run(command, cwd=BUNDLE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "set IFIM_TEST_DATA or pass --dataset_dir" in done.stdout + done.stderr


def test_stated_accuracy_holds_on_the_test_images() -> None:
    folder = os.environ.get("IFIM_TEST_DATA")
    if not folder:
        pytest.skip("set IFIM_TEST_DATA to the folder that holds mednist/datalist.json")
    datalist = Path(folder) / "mednist" / "datalist.json"
    entries = load_decathlon_datalist(datalist, is_segmentation=False, data_list_key="testing", base_dir=folder)
    assert len(entries) == 360
    assert {Path(entry["image"]).parent.name: entry["label"] for entry in entries} == {
        name: label for label, name in enumerate(CLASS_NAMES)
    }
    compose = preprocessing()
    images = torch.stack([compose({"image": entry["image"]})["image"].as_tensor() for entry in entries])
    labels = torch.tensor([entry["label"] for entry in entries])
    with torch.no_grad():
        probabilities = trained_network()(images).softmax(1)
    accuracy = (probabilities.argmax(dim=1) == labels).double().mean().item()
    stated = metadata()["eval_metrics"]
    assert accuracy >= stated["accuracy"] - 0.02
    assert expected_calibration_error(probabilities, labels) == pytest.approx(stated["expected_calibration_error"], abs=0.005)
    assert f"**{stated['expected_calibration_error']}**" in (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
