"""The overlays in configs/ on bundles shaped like two of the model zoo's, run as MONAI runs bundles."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.engines import IterationEvents
from PIL import Image
from typer.testing import CliRunner

from bundle_run import run_bundle
from monai_ifim import IFIMError, IFIMHandler, IFIMInferer, SaveIFIMd, decompose
from monai_ifim.adapt.handler import HandlerArguments
from monai_ifim.adapt.saving import WriterArguments
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.core.settings import SettingsShortcuts, selection
from monai_ifim.io import read_sidecar
from monai_ifim.io.installation import configs_folder

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "tests" / "zoo_bundles"
TEMPLATE, ENDOSCOPIC = "classification_template", "endoscopic_inbody_classification"
RUN_KEYS = {TEMPLATE: "run", ENDOSCOPIC: "evaluating"}
SETTINGS = {
    (TEMPLATE, "ifim"): ("--ifim#energy", "0.6", "--ifim#output_dir", "@output_dir"),
    (TEMPLATE, "ifim_inferer"): ("--ifim#rank", "2", "--ifim_save#output_dir", "@output_dir"),
    (ENDOSCOPIC, "ifim"): (
        "--ifim#space", "network", "--ifim#contents", "high,low", "--ifim#locality", "False", "--ifim#output_dir", "@output_dir"
    ),
    (ENDOSCOPIC, "ifim_inferer"): ("--ifim_save#output_dir", "@output_dir"),
}  # fmt: skip
SELECTIONS = {"ifim": {"energy": 0.6}, "ifim_inferer": {"rank": 2}}
OVERLAYS = pytest.mark.parametrize("overlay", ["ifim", "ifim_inferer"])


class Runs(NamedTuple):
    """A bundle and the folders it wrote: without an overlay ("plain") and with each."""

    bundle: Path
    outputs: dict[str, Path]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three labelled slices of an odd size, of two of the four classes."""
    root = _copied(TEMPLATE, tmp_path_factory.mktemp("zoo"))
    generator, samples = np.random.default_rng(5), []
    for label, name in enumerate(("first", "second", "third")):
        path = root / "data" / f"{name}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        values = generator.normal(size=(67, 45)).cumsum(0).cumsum(1)
        nib.save(nib.Nifti1Image(values.astype(np.float32), np.diag([1.5, 0.8, 1.0, 1.0])), path)
        samples.append({"image": str(path), "label": label % 2})
    (root / "data" / "samples.json").write_text(json.dumps(samples), encoding="utf-8")
    return _run_all(root)


@pytest.fixture(scope="module")
def endoscopic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """Two colour photographs of different sizes."""
    root = _copied(ENDOSCOPIC, tmp_path_factory.mktemp("zoo"))
    generator, samples = np.random.default_rng(6), []
    (root / "label").mkdir()
    for name, size in {"left": (75, 91), "right": (129, 70)}.items():
        path = root / "label" / f"{name}.jpg"
        coarse = generator.integers(0, 255, (7, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        samples.append({"image": str(path)})
    (root / "label" / "test_samples.json").write_text(json.dumps(samples), encoding="utf-8")
    yield _run_all(root)
    (root / "models" / "model.pt").unlink()


def _copied(name: str, folder: Path) -> Path:
    """The bundle's configs, and seeded weights for them."""
    root = folder / name
    shutil.copytree(BUNDLES / name, root)
    (root / "models").mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = _parsed(root).get_parsed_content("network_def")
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def _config(root: Path) -> Path:
    return next((root / "configs").glob("inference.*"))


def _parsed(root: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(_config(root))
    return parser


def _run_all(root: Path) -> Runs:
    """The bundle without an overlay and with each."""
    outputs = {name: root / f"out_{name}" for name in ("plain", "ifim", "ifim_inferer")}
    for name, output in outputs.items():
        files = [f"configs/{_config(root).name}"]
        if name != "plain":
            files.append(str(configs_folder() / f"{name}.yaml"))
        words = ("--config_file", str(files), "--bundle_root", ".", "--output_dir", str(output))
        run_bundle(root, RUN_KEYS[root.name], *words, *SETTINGS.get((root.name, name), ()))
    return Runs(root, outputs)


def _tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _image(folder: Path, content: str) -> Array:
    """All channels [channel, *spatial] of one map of the case in `folder`."""
    paths = sorted(folder.glob(f"{folder.name}_ifim_{content}*.nii.gz"), key=lambda path: ("channel" in path.name, path.name))
    return np.stack([nib.load(path).get_fdata()[..., 0] for path in paths])


def _seen_by_the_network(root: Path) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """The bundle's network with its weights and every input [1, channel, *spatial] by its name."""
    parser = _parsed(root)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(root / "models" / "model.pt", weights_only=True))
    preprocessing = parser.get_parsed_content("preprocessing")
    listed = json.loads(next(root.glob("*/*samples.json")).read_text())
    images = {Path(entry["image"]).name.split(".")[0]: preprocessing(entry)["image"].as_tensor()[None] for entry in listed}
    return network.eval(), images


@OVERLAYS
def test_predictions_and_metrics_of_the_template_are_byte_identical(template: Runs, overlay: str) -> None:
    plain = _tables(template.outputs["plain"])
    assert {"predictions.csv", "metrics.csv"} <= set(plain)
    assert len(plain["predictions.csv"].splitlines()) == 3
    assert _tables(template.outputs[overlay]) == plain


@OVERLAYS
def test_predictions_of_the_endoscopic_bundle_are_byte_identical(endoscopic: Runs, overlay: str) -> None:
    plain = _tables(endoscopic.outputs["plain"])
    assert set(plain) == {"predictions.csv", "classes.csv"}
    assert len(plain["predictions.csv"].splitlines()) == 2
    assert _tables(endoscopic.outputs[overlay]) == plain


@OVERLAYS
def test_components_of_the_template_are_those_of_decompose(template: Runs, overlay: str) -> None:
    network, images = _seen_by_the_network(template.bundle)
    for name, image in images.items():
        folder = template.outputs[overlay] / name
        expected = decompose(network, image, **SELECTIONS[overlay])
        scan = nib.load(template.bundle / "data" / f"{name}.nii.gz")
        values = scan.get_fdata()
        np.testing.assert_allclose(_image(folder, "input")[0], (values - values.min()) / np.ptp(values), atol=1e-6)
        np.testing.assert_allclose(_image(folder, "high"), expected.high[0], atol=1e-5)
        np.testing.assert_allclose(_image(folder, "high") + _image(folder, "low"), image[0], atol=1e-5)
        np.testing.assert_allclose(np.abs(_image(folder, "eigenvector-01")), expected.eigenvectors[0, 0].abs(), atol=1e-4)
        np.testing.assert_allclose(nib.load(folder / f"{name}_ifim_high.nii.gz").affine, scan.affine, atol=1e-6)
        sidecar = read_sidecar(folder / f"{name}_ifim.json")
        np.testing.assert_allclose(sidecar["eigenvalues"], expected.eigenvalues[0], rtol=1e-4)
        assert selection(sidecar["settings"]) == SELECTIONS[overlay]
        assert sidecar["model"]["class_names"] == ["none", "disc", "ring", "bar"]


def test_components_of_the_endoscopic_bundle_are_those_of_decompose(endoscopic: Runs) -> None:
    network, images = _seen_by_the_network(endoscopic.bundle)
    for name, image in images.items():
        folder = endoscopic.outputs["ifim"] / name
        expected = decompose(network, image)
        assert len(list(folder.glob("*.nii.gz"))) == 3 * 3
        # In another process the last digit of a float32 sum may differ, and with it the side of a few of a deep network's
        # rectifiers; the template's smooth network above is compared voxel by voxel.
        difference = np.linalg.norm(_image(folder, "high") - expected.high[0].numpy())
        assert difference < 0.02 * np.linalg.norm(expected.high[0].numpy())
        np.testing.assert_allclose(_image(folder, "high") + _image(folder, "low"), image[0], atol=1e-5)
        sidecar = read_sidecar(folder / f"{name}_ifim.json")
        np.testing.assert_allclose(sidecar["eigenvalues"], expected.eigenvalues[0], rtol=2e-2)
        assert (sidecar["space"]["name"], sidecar["locality_radius"]) == ("network", None)


def test_by_default_components_lie_on_the_grid_of_the_photograph(endoscopic: Runs) -> None:
    for name in ("left", "right"):
        folder = endoscopic.outputs["ifim_inferer"] / name
        high, low, shown = (_image(folder, content) for content in ("high", "low", "input"))
        assert high.shape == (3, *Image.open(endoscopic.bundle / "label" / f"{name}.jpg").size)
        np.testing.assert_allclose(high + low, shown, atol=1e-5 * np.ptp(shown))


def test_overlays_state_existing_arguments_with_their_default_values() -> None:
    """Entries that only a bundle knows, and the locality radius, have values of their own."""
    handler, inferer = (yaml.safe_load((configs_folder() / f"{name}.yaml").read_text()) for name in ("ifim", "ifim_inferer"))
    stated = [
        (handler["ifim"], IFIMHandler, HandlerArguments),
        (inferer["ifim"], IFIMInferer, SettingsShortcuts),
        (inferer["ifim_save"], SaveIFIMd, WriterArguments),
    ]
    known_to_bundles = {"keys", "output_dir", "preprocessing", "bundle_root", "locality", "grey"}
    for settings, kind, shortcuts in stated:
        assert settings.pop("_target_") == f"monai_ifim.adapt.{kind.__name__}"
        parameters = inspect.signature(kind).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}
        del defaults["settings"]  # in the place of which a config names fields
        fields = {name: one.default for name, one in CaseSettings.options().items()} | {
            "preprocessing": None,
            "class_names": (),
            "bundle_root": None,
        }
        defaults |= {name: fields[name] for name in get_type_hints(shortcuts)}
        assert not set(settings) - set(defaults), kind
        for name in set(settings) - known_to_bundles:
            default = defaults[name]
            assert settings[name] == (list(default) if isinstance(default, tuple) else default), name


def test_both_overlays_state_the_selection_the_head_and_the_memory_budget() -> None:
    for name in ("ifim", "ifim_inferer"):
        stated = set(yaml.safe_load((configs_folder() / f"{name}.yaml").read_text())["ifim"])
        assert {"head", "energy", "rank", "method", "memory_budget", "locality"} <= stated


def test_an_evaluator_of_another_name_is_reached_from_the_command_line(tmp_path: Path) -> None:
    evaluator = {"_target_": "SupervisedEvaluator", "device": "cpu", "val_data_loader": [], "network": "$torch.nn.Identity()"}
    section = {"preprocessing": {"_target_": "Compose", "transforms": []}, "evaluator": evaluator}
    content = {"imports": ["$import torch"], "bundle_root": str(tmp_path), "initialize": ["$1 + 1"], "validate": section}
    (tmp_path / "train.json").write_text(json.dumps(content))
    parser = ConfigParser()
    parser.read_config([tmp_path / "train.json", configs_folder() / "ifim.yaml"])
    parser.update({"ifim_evaluator": "@validate#evaluator", "ifim#preprocessing": "@validate#preprocessing"})
    parser.update({"ifim#seed": 3})  # which the overlay does not state
    assert parser.get_parsed_content("initialize") == [2, None]
    handler = parser.get_parsed_content("ifim")
    assert handler.settings.seed == 3
    engine = parser.get_parsed_content("validate#evaluator")
    assert engine.has_event_handler(handler._decompose_batch, IterationEvents.FORWARD_COMPLETED)


@OVERLAYS
def test_config_prints_the_path_alone(overlay: str) -> None:
    result = CliRunner().invoke(app, ["config", overlay])
    assert result.exit_code == 0
    assert result.output == f"{configs_folder() / overlay}.yaml\n"


def test_config_lists_what_there_is_where_the_name_is_unknown() -> None:
    result = CliRunner().invoke(app, ["config", "moon"])
    assert isinstance(result.exception, IFIMError)
    assert str(result.exception) == "moon: no such overlay: choose one of ifim, ifim_inferer."
