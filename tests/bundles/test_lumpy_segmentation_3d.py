"""The bundle lumpy_segmentation_3d: its files agree, its stated figures hold, and its evaluator takes the overlay."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from bundle_run import run_bundle
from monai_ifim import decompose
from monai_ifim.core.dense import dense_jacobian
from monai_ifim.evaluation.demonstration import planted_lesion
from monai_ifim.evaluation.lumpy.images import LumpyParameters, draw_volume, write_image
from monai_ifim.evaluation.lumpy.lesion_masks import LEAST_WIDTH, LESION_VOLUMES, VOXEL_ML, LesionMaskDataset, half_maximum
from monai_ifim.evaluation.lumpy.segmentation_report import segmentation_report
from monai_ifim.io import read_sidecar
from monai_ifim.io.installation import configs_folder, resolve_bundle

BUNDLE = resolve_bundle("lumpy_segmentation_3d")
CONFIGS = BUNDLE / "configs"
RESULTS: dict[str, Any] = json.loads((BUNDLE / "docs" / "results.json").read_text(encoding="utf-8"))
METADATA: dict[str, Any] = json.loads((CONFIGS / "metadata.json").read_text(encoding="utf-8"))


def parsed(*names: str, root: Path = BUNDLE) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    parser["bundle_root"] = str(root)
    return parser


@pytest.fixture(scope="module")
def network() -> nn.Module:
    net = parsed("inference.yaml").get_parsed_content("network_def")
    net.load_state_dict(torch.load(BUNDLE / "models" / "model.pt", weights_only=True))
    assert isinstance(net, nn.Module)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def normalised() -> Any:
    return parsed("train.yaml").get_parsed_content("train#preprocessing")


def test_configs_describe_one_network_and_the_task_of_the_package() -> None:
    train = parsed("train.yaml")
    assert train["network_def"] == parsed("inference.yaml")["network_def"]
    tested = parsed("train.yaml", "evaluate.yaml").get_parsed_content("validate#dataset#data")
    sets = [train.get_parsed_content(f"{name}#dataset#data") for name in ("train", "validate")] + [tested]
    assert {(each.parameters, each.least_width) for each in sets} == {(LESION_VOLUMES, LEAST_WIDTH)}
    assert len({each.seed for each in sets}) == 3
    assert (len(tested), tested.seed) == (sum(RESULTS["volumes"][kind] for kind in ("with_lesion", "without_lesion")), 7000)


def test_figures_of_the_metadata_and_the_model_card_are_those_of_the_results_file() -> None:
    assert METADATA["eval_metrics"] == {
        "mean_dice": RESULTS["dice"]["mean"],
        "lesions_missed": RESULTS["lesions_missed"]["mean"],
        "false_positive_volumes": RESULTS["false_positives"]["volumes"]["mean"],
        "mean_absolute_volume_error_ml": RESULTS["volume_error_ml"]["called"]["absolute"]["mean"],
        "expected_calibration_error": RESULTS["calibration"]["expected_error"],
    }
    card = (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8")
    stated = {
        text.strip(): numbers
        for text, numbers in re.findall(r"^\| ([^|]+) \| (-?\d[\d.e-]*(?: \([^)]*\))?) \|$", card, re.MULTILINE)
    }
    assert stated == {
        "Dice, volumes with a lesion": _with_interval(RESULTS["dice"]),
        "lesions missed (no voxel in common)": _with_interval(RESULTS["lesions_missed"]),
        "volumes without a lesion in which a voxel is called lesion": _with_interval(RESULTS["false_positives"]["volumes"]),
        "ml called lesion in a volume without one": _with_interval(RESULTS["false_positives"]["called_ml"]),
        "ml expected in a volume without one": _with_interval(RESULTS["false_positives"]["expected_ml"]),
        "true volume, ml": _with_interval(RESULTS["volume_ml"]),
        "called minus true volume, ml": _with_interval(RESULTS["volume_error_ml"]["called"]["signed"]),
        "the same, absolute": _with_interval(RESULTS["volume_error_ml"]["called"]["absolute"]),
        "expected minus true volume, ml": _with_interval(RESULTS["volume_error_ml"]["expected"]["signed"]),
        "the same, absolute, of the expected volume": _with_interval(RESULTS["volume_error_ml"]["expected"]["absolute"]),
        "expected calibration error of the lesion's probability": f"{RESULTS['calibration']['expected_error']:g}",
    }
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \|$", card, re.MULTILINE)
    bins = [[each[name] for name in ("voxels", "probability", "frequency")] for each in RESULTS["calibration"]["bins"]]
    assert [[float(number.replace(",", "")) for number in row] for row in rows] == bins
    assert "Probabilities above a half are too low, and those below a third too high" in card
    assert all(frequency > probability for _, probability, frequency in bins if probability > 0.5)
    assert all(frequency < probability for _, probability, frequency in bins if probability < 1 / 3)


def _with_interval(figure: dict[str, Any]) -> str:
    if figure["interval"] is None:
        return f"{figure['mean']:g}"
    low, high = figure["interval"]
    return f"{figure['mean']:g} ({low:g} to {high:g})"


def test_the_metadata_say_that_it_is_a_toy_and_what_its_channels_are() -> None:
    assert "a toy on synthetic volumes" in METADATA["intended_use"]
    output = METADATA["network_data_format"]["outputs"]["pred"]
    assert (output["format"], output["channel_def"]) == ("segmentation", {"0": "background", "1": "lesion"})
    assert METADATA["version"] in METADATA["changelog"]


def test_it_finds_lesions_that_it_has_not_seen(network: nn.Module, normalised: Any) -> None:
    found = segmentation_report(network, LesionMaskDataset(LESION_VOLUMES, length=24, seed=99), normalised, batch_size=8)
    assert found["dice"]["mean"] > 0.75
    assert found["lesions_missed"]["mean"] == 0
    assert found["false_positives"]["called_ml"]["mean"] < 0.05
    assert abs(found["volume_error_ml"]["expected"]["signed"]["mean"]) < 0.1


def test_a_file_reaches_the_network_as_a_training_volume_does(tmp_path: Path, normalised: Any) -> None:
    item = LesionMaskDataset(LESION_VOLUMES, length=2, seed=9)[1]
    path = write_image(item["image"][0], tmp_path / "volume.nii.gz")
    from_file = parsed("inference.yaml").get_parsed_content("preprocessing")({"image": str(path)})["image"]
    torch.testing.assert_close(torch.as_tensor(from_file), torch.as_tensor(normalised(item)["image"]), atol=1e-5, rtol=0)


class Volumes(nn.Module):
    """Expected volume of each label in ml, [B, C]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        return VOXEL_ML * self.network(image).softmax(1).flatten(2).sum(2)


def test_the_fisher_matrix_of_the_volumes_is_the_dense_one(network: nn.Module, normalised: Any) -> None:
    drawn = LesionMaskDataset(LESION_VOLUMES, length=2, seed=4).segmented(1)
    start = [min(max(centre - 4, 0), 20) for centre in drawn.place]
    crop = normalised({"image": drawn.image[None]})["image"]
    image = torch.as_tensor(crop)[None, :, start[0] : start[0] + 12, start[1] : start[1] + 8, start[2] : start[2] + 8]
    double = Volumes(network).double()
    try:
        volumes, gradients = double(image.double())[0], dense_jacobian(double, image)
        found = decompose(network, image.double(), head="volumes", volume_tolerance="3 %", voxel_volume=VOXEL_ML, energy=1.0)
    finally:
        network.float()
    sigma = (0.03 * volumes).clamp_min(VOXEL_ML)
    fisher = (gradients / sigma[:, None]).T @ (gradients / sigma[:, None])
    torch.testing.assert_close(found.probabilities[0], volumes)
    torch.testing.assert_close(found.eigenvalues[0, 0], torch.linalg.eigvalsh(fisher)[-1])
    torch.testing.assert_close(found.sensitivity[0].flatten(), fisher.diagonal(), rtol=1e-5, atol=1e-12)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle's own evaluator on a volume of an uneven, turned grid, without and with the overlay: folder of each."""
    root = tmp_path_factory.mktemp("bundle") / BUNDLE.name
    shutil.copytree(BUNDLE, root)
    task = LumpyParameters(shape=(37, 30, 33), lesion_amplitude=4.0, lesion_width=3.0)
    drawn = draw_volume(task, lesion=True, generator=torch.Generator().manual_seed(5))
    turn = np.array([[0.0, -1.0, 0.0], [0.9848, 0.0, 0.1736], [-0.1736, 0.0, 0.9848]])
    affine = np.block([[2.0 * turn, np.array([[5.0], [-7.0], [11.0]])], [np.zeros((1, 3)), np.ones((1, 1))]])
    nib.save(nib.Nifti1Image(drawn.image.numpy(), affine), root / "scan.nii.gz")
    nib.save(nib.Nifti1Image(half_maximum(task, drawn.place).numpy(), affine), root / "truth.nii.gz")
    outputs = {name: root / f"out_{name}" for name in ("plain", "ifim")}
    for name, output in outputs.items():
        files = ["configs/inference.yaml"] + ([str(configs_folder() / "ifim.yaml")] if name == "ifim" else [])
        words = ("--config_file", str(files), "--bundle_root", ".", "--input", "scan.nii.gz", "--output_dir", str(output))
        run_bundle(root, "run", *words, *OVERLAID[name])
    return outputs


OVERLAID = {"plain": (), "ifim": ("--ifim#head", "volumes", "--ifim#output_dir", "@output_dir")}


@pytest.mark.slow
def test_its_evaluator_writes_the_mask_on_the_grid_of_the_scan(runs: dict[str, Path]) -> None:
    folder = runs["plain"]
    mask, truth = (nib.load(path) for path in (folder / "scan" / "scan_segmentation.nii.gz", folder.parent / "truth.nii.gz"))
    np.testing.assert_allclose(mask.affine, truth.affine, atol=1e-5)
    found, true = (np.asarray(image.dataobj).squeeze() > 0 for image in (mask, truth))
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.7


@pytest.mark.slow
def test_the_overlay_adds_components_and_leaves_the_mask_as_it_is(runs: dict[str, Path]) -> None:
    masks = [folder / "scan" / "scan_segmentation.nii.gz" for folder in runs.values()]
    np.testing.assert_array_equal(*[np.asarray(nib.load(mask).dataobj) for mask in masks])
    case = runs["ifim"] / "scan"
    parts = {name: nib.load(case / f"scan_ifim_{name}.nii.gz").get_fdata() for name in ("input", "high", "low", "sensitivity")}
    np.testing.assert_allclose(parts["high"] + parts["low"], parts["input"], rtol=0, atol=1e-5 * np.ptp(parts["input"]))
    sidecar = read_sidecar(case / "scan_ifim.json")
    assert (sidecar["rank"], sidecar["model"]["head"]) == (1, "volumes")
    near = np.asarray(nib.load(runs["ifim"].parent / "truth.nii.gz").dataobj) > 0
    assert parts["sensitivity"][near].mean() > 10 * parts["sensitivity"][~near].mean()


@pytest.mark.slow
def test_training_is_repeated_to_the_bit(tmp_path: Path) -> None:
    trained = []
    for name in ("first", "second"):
        root = tmp_path / name
        shutil.copytree(BUNDLE, root)
        few = ("--epochs", "1", "--iterations_per_epoch", "2", "--batch_size", "2", "--val_volumes", "2", "--val_interval", "1")
        run_bundle(root, "run", "--config_file", "configs/train.yaml", "--bundle_root", ".", *few)
        trained.append(torch.load(root / "models" / "model.pt", weights_only=True))
    shipped = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    for key, value in trained[0].items():
        assert torch.equal(value, trained[1][key]), key
    assert any(not torch.equal(value, shipped[key]) for key, value in trained[0].items())


def test_the_planted_lesion_is_found_where_it_was_planted(tmp_path: Path, network: nn.Module) -> None:
    truth = planted_lesion(tmp_path)
    data = parsed("inference.yaml").get_parsed_content("preprocessing")({"image": str(truth.path)})
    with torch.no_grad():
        share = network(torch.as_tensor(data["image"])[None]).double().softmax(1)[0, 1].numpy()
    affine = np.asarray(data["image"].affine)
    weights = share / share.sum()
    centre = affine[:3, :3] @ np.array([(grid * weights).sum() for grid in np.indices(share.shape)]) + affine[:3, 3]
    np.testing.assert_allclose(centre, truth.centre, atol=2.0)
    assert share.sum() * VOXEL_ML == pytest.approx(truth.volume, abs=0.3)
