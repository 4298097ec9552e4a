"""The demonstration inputs, and that they fit the bundle they are shown to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from monai.bundle import ConfigParser
from pydicom.data import get_testdata_file

from monai_ifim.evaluation.demonstration import (
    HEAD_WINDOW,
    PlantedLesion,
    demo_head,
    demo_lesion,
    demo_slice,
    demo_volume,
    planted_lesion,
)
from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters, draw_volume, write_image

BUNDLE = Path(__file__).parents[2] / "bundles" / "lumpy_lesion_detection_3d"


def _config(name: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / name))
    parser["bundle_root"] = str(BUNDLE)
    return parser


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    net = _config("inference.yaml").get_parsed_content("network_def")
    net.load_state_dict(torch.load(BUNDLE / "models" / "model.pt", weights_only=True))
    return net.eval()  # type: ignore[no-any-return]


def test_demo_slice_is_a_ct_with_pixels() -> None:
    slice_ = pydicom.dcmread(demo_slice())
    assert slice_.Modality == "CT"
    assert slice_.pixel_array.shape == (128, 128)


def test_the_head_is_pydicoms_slice_where_the_scanner_says_without_its_padding(tmp_path: Path) -> None:
    path = demo_head(tmp_path)
    written = path.stat().st_mtime_ns
    assert demo_head(str(tmp_path)) == path
    assert path.stat().st_mtime_ns == written
    image, header = nibabel.load(path), pydicom.dcmread(get_testdata_file("J2K_pixelrep_mismatch.dcm", download=False))
    hounsfield = header.pixel_array * float(header.RescaleSlope) + float(header.RescaleIntercept)
    assert hounsfield.min() < HEAD_WINDOW[0]
    np.testing.assert_array_equal(image.get_fdata()[..., 0], np.clip(hounsfield, *HEAD_WINDOW).T)
    across, down = np.reshape(header.ImageOrientationPatient, (2, 3)) * np.asarray(header.PixelSpacing)[::-1, None]
    for column, row in ((0, 0), (511, 0), (100, 300)):
        place = np.asarray(header.ImagePositionPatient) + column * across + row * down
        # the header rounds directions to four digits, and ITK sets them at right angles
        np.testing.assert_allclose(image.affine @ [column, row, 0, 1], [-place[0], -place[1], place[2], 1], atol=0.01)


def test_the_lesion_of_the_demo_volume_is_where_the_truth_says(tmp_path: Path) -> None:
    """The same draw without the lesion differs by a Gaussian about the place that is stated."""
    truth = demo_lesion(tmp_path)
    assert truth.path == demo_volume(tmp_path)
    dataset = LumpyDataset(LumpyParameters(), length=2, seed=1)
    without = draw_volume(dataset.parameters, lesion=False, generator=dataset.generator(1)).image.numpy()
    added = nibabel.load(truth.path).get_fdata() - without
    peak = np.unravel_index(added.argmax(), added.shape)
    np.testing.assert_allclose(truth.centre, 2.0 * np.asarray(peak))
    np.testing.assert_array_equal(truth.mask.numpy() > 0, added >= LumpyParameters().lesion_amplitude / 2 - 1e-6)
    assert truth.volume == pytest.approx(float(truth.mask.sum()) * 0.008)


def test_demo_volume_is_written_once_and_is_always_the_same(tmp_path: Path) -> None:
    first = demo_volume(tmp_path / "a")
    written = first.stat().st_mtime_ns
    assert demo_volume(tmp_path / "a") == first
    assert first.stat().st_mtime_ns == written
    image = nibabel.load(first)
    assert (image.shape, image.header.get_zooms()) == ((32, 32, 32), (2.0, 2.0, 2.0))
    other = nibabel.load(demo_volume(str(tmp_path / "b")))
    np.testing.assert_array_equal(image.get_fdata(), other.get_fdata())
    assert [p.name for p in first.parent.iterdir()] == [first.name]


def test_the_planted_lesion_is_in_the_file_where_the_truth_says(tmp_path: Path) -> None:
    truth = planted_lesion(tmp_path / "a")
    written = truth.path.stat().st_mtime_ns
    again, other = planted_lesion(tmp_path / "a"), planted_lesion(str(tmp_path / "b"))
    assert truth.path.stat().st_mtime_ns == written
    assert (again.path, again.centre, again.volume) == (truth.path, truth.centre, truth.volume) == (truth.path, *_truth(other))
    image = nibabel.load(truth.path)
    np.testing.assert_array_equal(image.get_fdata(), nibabel.load(other.path).get_fdata())
    inside = truth.mask.numpy() > 0
    assert truth.volume == pytest.approx(inside.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000)
    centre = image.affine[:3, :3] @ np.argwhere(inside).mean(0) + image.affine[:3, 3]
    np.testing.assert_allclose(truth.centre, centre, atol=1e-6)
    values = image.get_fdata()
    assert values[inside].mean() > values[~inside].mean() + 2  # at least half of the amplitude of 4


def _truth(lesion: PlantedLesion) -> tuple[tuple[float, ...], float]:
    return lesion.centre, lesion.volume


def test_default_task_is_the_one_the_bundle_was_trained_on() -> None:
    assert _config("train.yaml").get_parsed_content("task") == LumpyParameters()
    overlaid = ConfigParser()
    overlaid.read_config([str(BUNDLE / "configs" / name) for name in ("train.yaml", "evaluate.yaml")])
    assert asdict(overlaid.get_parsed_content("task")) == asdict(LumpyParameters())


def test_training_validation_and_test_sets_have_seeds_of_their_own() -> None:
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in ("train.yaml", "evaluate.yaml")])
    trained = {part.seed for part in _config("train.yaml").get_parsed_content("train#dataset#data").datasets}
    validated = _config("train.yaml").get_parsed_content("validate#dataset#data").seed
    tested = parser.get_parsed_content("validate#dataset#data").seed
    assert len(trained | {validated, tested}) == len(trained) + 2


def test_configs_describe_one_network() -> None:
    assert _config("train.yaml")["network_def"] == _config("inference.yaml")["network_def"]


def test_a_file_reaches_the_network_as_a_training_volume_does(tmp_path: Path) -> None:
    item = LumpyDataset(LumpyParameters(), length=2, seed=9)[1]
    path = write_image(item["image"][0], tmp_path / "volume.nii.gz")
    from_file = _config("inference.yaml").get_parsed_content("preprocessing")({"image": str(path)})["image"]
    drawn = _config("train.yaml").get_parsed_content("train#preprocessing")(item)["image"]
    torch.testing.assert_close(torch.as_tensor(from_file), torch.as_tensor(drawn), atol=1e-5, rtol=0)


def test_the_network_sees_the_lesion_of_the_demo_volume(tmp_path: Path, network: torch.nn.Module) -> None:
    preprocessing = _config("inference.yaml").get_parsed_content("preprocessing")
    image = preprocessing({"image": str(demo_volume(tmp_path))})["image"]
    with torch.no_grad():
        probability = network(image[None].as_tensor()).softmax(-1)[0, 1]
    assert float(probability) > 0.5


def test_an_answer_does_not_depend_on_the_rest_of_the_batch(network: torch.nn.Module) -> None:
    dataset = LumpyDataset(LumpyParameters(), length=4, seed=2)
    batch = torch.stack([dataset[i]["image"] for i in range(4)])
    with torch.no_grad():
        torch.testing.assert_close(network(batch)[2:3], network(batch[2:3]), atol=1e-4, rtol=1e-4)
