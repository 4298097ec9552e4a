"""The overlays in scanner space, on bundles shaped like two of the model zoo's, run as MONAI runs bundles."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from bundle_run import run_bundle
from monai_ifim import decompose_scan
from monai_ifim.adapt.scanner.preprocessing import reading_of
from monai_ifim.core import Decomposition
from monai_ifim.io import read_sidecar
from monai_ifim.io.installation import configs_folder

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "tests" / "zoo_bundles"
TEMPLATE, ENDOSCOPIC = "classification_template", "endoscopic_inbody_classification"
SCANNER = "{'_target_': 'monai_ifim.adapt.ScannerSpace', 'preprocessing': '@preprocessing', 'statistics': 'freeze'}"
RUNS: dict[str, dict[str, tuple[str, ...]]] = {
    TEMPLATE: {
        "plain": (),
        "ifim": ("--ifim#space", "scanner", "--ifim#energy", "0.8"),
        "ifim_inferer": ("--ifim#scanner", SCANNER, "--ifim_save#space", "scanner", "--ifim#energy", "0.8"),
    },
    ENDOSCOPIC: {
        "plain": (),
        "ifim": ("--ifim#space", "scanner", "--ifim#contents", "high,low,sensitivity", "--ifim#locality", "False"),
    },
}
PLACES = {"ifim": ("--ifim#output_dir", "@output_dir"), "ifim_inferer": ("--ifim_save#output_dir", "@output_dir"), "plain": ()}


class Runs(NamedTuple):
    """A bundle, its images by case, and the folders it wrote: without an overlay ("plain") and with each."""

    bundle: Path
    images: dict[str, Path]
    outputs: dict[str, Path]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Two slices in an arbitrary unit; the preprocessing scales values and keeps the grid."""
    root = copied(TEMPLATE, tmp_path_factory.mktemp("zoo"))
    generator, images = np.random.default_rng(5), {}
    (root / "data").mkdir()
    for name in ("first", "second"):
        images[name] = root / "data" / f"{name}.nii.gz"
        values = 300 + 40 * generator.normal(size=(67, 45)).cumsum(0).cumsum(1)
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([1.5, 0.8, 1.0, 1.0])), images[name])
    samples = [{"image": str(path), "label": label} for label, path in enumerate(images.values())]
    (root / "data" / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    return run_all(root, images, "run", "--batch_size", "1")


@pytest.fixture(scope="module")
def endoscopic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """A colour photograph with a black border, which the preprocessing enlarges and normalises where it is not black."""
    root = copied(ENDOSCOPIC, tmp_path_factory.mktemp("zoo"))
    (root / "label").mkdir()
    path = root / "label" / "left.png"
    coarse = np.random.default_rng(6).integers(1, 255, (7, 5, 3), dtype=np.uint8)
    picture = np.array(Image.fromarray(coarse).resize((75, 91), Image.Resampling.BICUBIC))
    picture[:, :13] = 0
    Image.fromarray(picture).save(path)
    (root / "label" / "test_samples.json").write_text(json.dumps([{"image": str(path)}]), encoding="utf-8")
    yield run_all(root, {"left": path}, "evaluating")
    (root / "models" / "model.pt").unlink()


def copied(name: str, folder: Path) -> Path:
    """The bundle's configs, and seeded weights for them."""
    root = folder / name
    shutil.copytree(BUNDLES / name, root)
    (root / "models").mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = parsed(root).get_parsed_content("network_def")
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def parsed(root: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config(root))
    return parser


def config(root: Path) -> Path:
    return next((root / "configs").glob("inference.*"))


def run_all(root: Path, images: dict[str, Path], run: str, *words: str) -> Runs:
    """The bundle without an overlay and with each."""
    outputs = {name: root / f"out_{name}" for name in RUNS[root.name]}
    for name, output in outputs.items():
        files = [f"configs/{config(root).name}", *([] if name == "plain" else [str(configs_folder() / f"{name}.yaml")])]
        settings = ("--config_file", str(files), "--bundle_root", ".", *words, "--output_dir", str(output))
        run_bundle(root, run, *settings, *RUNS[root.name][name], *PLACES[name])
    return Runs(root, images, outputs)


def expected(runs: Runs, name: str, **options: Any) -> tuple[Decomposition, Array]:
    """By `decompose_scan`, and the image's own values [channel, *spatial]."""
    parser = parsed(runs.bundle)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(runs.bundle / "models" / "model.pt", weights_only=True))
    preprocessing = parser.get_parsed_content("preprocessing")
    scan = reading_of(preprocessing)({"image": str(runs.images[name])})["image"]
    return decompose_scan(network.eval(), preprocessing, scan, **options), scan.numpy()


def channels(folder: Path, content: str) -> Array:
    """All channels [channel, *spatial] of one map of the case in `folder`."""
    paths = sorted(folder.glob(f"{folder.name}_ifim_{content}*.nii.gz"), key=lambda path: ("channel" in path.name, path.name))
    return np.stack([nib.load(path).get_fdata()[..., 0] for path in paths])


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("overlay", ["ifim", "ifim_inferer"])
def test_predictions_and_metrics_of_the_template_are_byte_identical(template: Runs, overlay: str) -> None:
    plain = tables(template.outputs["plain"])
    assert {"predictions.csv", "metrics.csv"} <= set(plain)
    assert tables(template.outputs[overlay]) == plain


@pytest.mark.parametrize(("overlay", "statistics"), [("ifim", "differentiate"), ("ifim_inferer", "freeze")])
def test_files_of_the_template_hold_the_components_of_the_scan_itself(template: Runs, overlay: str, statistics: Any) -> None:
    for name, path in template.images.items():
        folder = template.outputs[overlay] / name
        found, scan = expected(template, name, energy=0.8, statistics=statistics)
        image = nib.load(path)
        size = np.abs(scan).max()
        rounding = 0 if overlay == "ifim" else 1e-6 * size  # SaveIFIMd is given the network's input, and adds high and low
        np.testing.assert_allclose(channels(folder, "input")[0], image.get_fdata(), rtol=0, atol=rounding)
        np.testing.assert_allclose(channels(folder, "high") + channels(folder, "low"), scan, atol=1e-6 * size)
        np.testing.assert_allclose(channels(folder, "high"), found.high[0], atol=1e-4 * size)
        np.testing.assert_allclose(nib.load(folder / f"{name}_ifim_high.nii.gz").affine, image.affine, atol=1e-6)
        sidecar = read_sidecar(folder / f"{name}_ifim.json")
        np.testing.assert_allclose(sidecar["eigenvalues"], found.eigenvalues[0, : found.rank[0]], rtol=1e-3)
        assert sidecar["space"]["name"] == "scanner"
        assert sidecar["preprocessing"] == found.record["preprocessing"]
        assert sidecar["preprocessing"]["equivalents"] == ["ScaleIntensityd"]
        assert sidecar["units"]["maps"] == "scanner units"


@pytest.mark.soak
def test_predictions_of_the_endoscopic_bundle_are_byte_identical(endoscopic: Runs) -> None:
    assert tables(endoscopic.outputs["ifim"]) == tables(endoscopic.outputs["plain"])


@pytest.mark.soak
def test_files_of_the_endoscopic_bundle_hold_the_components_of_the_photograph(endoscopic: Runs) -> None:
    folder = endoscopic.outputs["ifim"] / "left"
    found, photograph = expected(endoscopic, "left")
    assert photograph.shape == (3, 75, 91)
    np.testing.assert_array_equal(channels(folder, "input"), photograph)
    high, low = channels(folder, "high"), channels(folder, "low")
    np.testing.assert_allclose(high + low, photograph, atol=1e-4)
    assert np.abs(high).max() < 1e-3  # brightness and contrast of each channel are taken away before the network
    sidecar = read_sidecar(folder / "left_ifim.json")
    assert sidecar["preprocessing"]["equivalents"] == ["NormalizeIntensityd"]
    np.testing.assert_allclose(sidecar["eigenvalues"], found.eigenvalues[0, : found.rank[0]], rtol=2e-2)
    assert sidecar["preprocessing"]["zeros_held"] is True
    scale = next(file["scale"] for file in sidecar["files"] if file["kind"] == "sensitivity")
    sensitivity, truth = channels(folder, "sensitivity") * scale, found.sensitivity[0].numpy()
    assert np.linalg.norm(sensitivity - truth) < 0.05 * np.linalg.norm(truth)
    assert not sensitivity[:, :13].any()  # black is told from all else, and stays black
    assert sensitivity[:, 13:].any(axis=(1, 2)).all()
