"""Every block of docs/pipelines.md is run as it stands, and its results are compared with those of `decompose`."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch
from ignite.engine import Events
from monai.bundle import BundleWorkflow, ConfigParser, ConfigWorkflow, create_workflow
from monai.engines import IterationEvents, SupervisedEvaluator
from monai.utils import set_determinism
from torch import Tensor, nn

from monai_ifim import Decomposition, IFIMDecompose, IFIMHandler, SaveIFIM, decompose
from monai_ifim.core.settings import selection
from monai_ifim.io import GeometryError, read_sidecar
from monai_ifim.io.installation import configs_folder

Array = npt.NDArray[Any]
Names = dict[str, Any]
Check = Callable[[Names], None]
ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "tests" / "zoo_bundles" / "classification_template"
PAGE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
SETUP = "What the examples assume"
CLASSES = ["none", "benign", "malignant"]


def _examples() -> dict[str, str]:
    """The Python under each heading of the page."""
    _, *parts = re.split(r"^## (.+)\n", PAGE, flags=re.MULTILINE)
    found = {title: re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL) for title, text in _pairs(parts)}
    return {title: "\n".join(blocks) for title, blocks in found.items() if blocks}


def _pairs(parts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(parts[::2], parts[1::2], strict=True)


EXAMPLES = _examples()
CHECKS: dict[str, Check] = {}


def checks(title: str) -> Callable[[Check], Check]:
    """Registers the check of the example under a heading; it gets the names that the example defined."""

    def register(check: Check) -> Check:
        CHECKS[title] = check
        return check

    return register


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """What the page's first block defines, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # running a bundle adds to it
    with torch.random.fork_rng(devices=[]):
        yield _run(SETUP, {"__name__": "page"})


def _run(title: str, names: Names) -> Names:
    """The names after the code under a heading was run with those given."""
    after = dict(names)
    exec(compile(EXAMPLES[title], f"pipelines.md: {title}", "exec"), after)
    return after


def test_every_block_of_the_page_is_run_and_checked() -> None:
    assert list(CHECKS) == list(EXAMPLES)
    run = "".join(EXAMPLES.values())
    blocks = re.findall(r"^ *(?:```|~~~)(\w*)\n(.*?)^ *(?:```|~~~)", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert 2 * len(blocks) == PAGE.count("```") + PAGE.count("~~~") > 0
    for language, block in blocks:
        assert language == "python"
        assert block in run


def test_links_lead_to_headings() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    links = set(re.findall(r"\(#([\w-]+)\)", PAGE))
    assert len(links) >= 9
    assert links <= anchors


@pytest.mark.parametrize("title", EXAMPLES)
def test_example(title: str, names: Names) -> None:
    CHECKS[title](names if title == SETUP else _run(title, names))


@checks(SETUP)
def check_setup(names: Names) -> None:
    """The network's input is the scan turned to RAS and scaled; the bundle holds the same network and preprocessing."""
    parser = ConfigParser()
    parser.read_config("my_bundle/configs/inference.yaml")
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load("my_bundle/models/model.pt", weights_only=True))
    for scan, batched in zip(names["scans"], torch.cat([batch["image"] for batch in names["loader"]]), strict=True):
        image = parser.get_parsed_content("preprocessing")({"image": scan})["image"]
        for mine in (image, batched, names["preprocessing"]({"image": scan})["image"]):
            np.testing.assert_allclose(mine[None], _seen(scan), atol=1e-6)
        torch.testing.assert_close(network.eval()(_seen(scan)), names["network"](_seen(scan)))


@checks("A bundle's config")
def check_config_workflow(names: Names) -> None:
    _check_items(names["found"], names, energy=0.99)
    assert not Path("my_bundle/eval").exists()
    plain = ConfigWorkflow("my_bundle/configs/inference.yaml", workflow_type="infer", bundle_root="my_bundle")
    plain.initialize()
    alone = _collected(plain.evaluator)
    plain.run()
    for case, before in zip(names["found"], alone, strict=True):
        assert torch.equal(case["pred"].as_tensor(), before["pred"].as_tensor())


@checks("create_workflow, with settings")
def check_create_workflow(names: Names) -> None:
    for sidecar in _check_files("results/workflow", names, energy=0.95):
        assert sidecar["model"]["bundle"] == "my_bundle"
        assert sidecar["model"]["class_names"] == CLASSES


@checks("A bundle written in Python")
def check_bundle_workflow(names: Names) -> None:
    assert issubclass(names["Screening"], BundleWorkflow)
    assert (names["handler"].cases, names["handler"].failures) == (3, [])
    _check_files("results/python", names, rank=1)


@checks("A MONAI evaluator, with the handler")
def check_handler(names: Names) -> None:
    alone = SupervisedEvaluator(torch.device("cpu"), names["loader"], names["network"])
    before, after = _collected(alone), _collected(names["evaluator"])
    alone.run()
    names["evaluator"].run()
    for logits, case in zip(before, after, strict=True):
        assert torch.equal(case["pred"].as_tensor(), logits["pred"].as_tensor().softmax(0))
    for scan in names["scans"]:
        written = nib.load(f"results/handler/{_name(scan)}_high.nii.gz")
        np.testing.assert_allclose(written.affine, nib.load(scan).affine, atol=1e-6)
        _close(written.get_fdata(), _of_scan(_expected(names, scan, energy=0.95).high[0, 0]))


@checks("A MONAI evaluator, with the inferer")
def check_inferer(names: Names) -> None:
    for sidecar, scan in zip(_check_files("results/inferer", names, energy=0.95), names["scans"], strict=True):
        radius = _expected(names, scan, energy=0.95, locality=True).locality_radius[0]
        np.testing.assert_allclose(sidecar["locality_radius"], radius, rtol=0.05)
    found = _collected(names["evaluator"])
    names["evaluator"].run()
    _check_items(found, names, energy=0.95)


@checks("A plain ignite engine")
def check_ignite(names: Names) -> None:
    _check_files("results/ignite", names, energy=0.99)
    output, last = names["engine"].state.output, names["scans"][2]
    _close(output["ifim_eigenvalues"], _expected(names, last).eigenvalues)
    _close(output["pred"].as_tensor(), _expected(names, last).probabilities)
    assert not output["pred"].requires_grad


@checks("A PyTorch loop")
def check_loop(names: Names) -> None:
    expected = [_expected(names, scan, energy=0.95) for scan in names["scans"]]
    _close(torch.cat(names["probabilities"]), _probabilities(names))
    _close(torch.cat(names["shares"]), torch.stack([d.high.norm() / d.image.norm() for d in expected]))
    _close(torch.cat(names["leading"]), torch.cat([d.eigenvectors[:, 0] for d in expected]))
    assert selection(names["d"].record["settings"]) == {"energy": 0.95}
    assert all(parameter.grad is None for parameter in names["network"].parameters())


@checks("A loop that writes files")
def check_files(names: Names) -> None:
    found = _check_files("results/files", names, energy=0.95)
    assert "scan-1" in Path("results/files/index.html").read_text(encoding="utf-8")
    assert [path.parent.name for path in names["sidecars"]] == [_name(scan) for scan in names["scans"]]
    for sidecar, scan in zip(found, names["scans"], strict=True):
        expected = _expected(names, scan, energy=0.95, locality=True)
        assert sidecar["prediction"]["class"] == CLASSES[int(expected.logits[0].argmax())]
        np.testing.assert_allclose(sidecar["locality_radius"], expected.locality_radius[0], rtol=0.05)


@checks("A Lightning module")
def check_lightning_module(names: Names) -> None:
    assert [len(prediction["high"]) for prediction in names["predictions"]] == [2, 1]
    found = {name: torch.cat([prediction[name] for prediction in names["predictions"]]) for name in names["predictions"][0]}
    expected = [_expected(names, scan, rank=1) for scan in names["scans"]]
    for name, values in found.items():
        _close(values, torch.cat([getattr(d, name) for d in expected]))
    np.testing.assert_allclose(found["high"] + found["low"], torch.cat([_seen(scan) for scan in names["scans"]]), atol=1e-5)


@checks("A Lightning callback")
def check_lightning_callback(names: Names) -> None:
    _check_files("results/lightning", names, energy=0.95)
    plain = _trainer().predict(names["Classifier"](names["network"]), names["loader"])
    assert torch.equal(torch.cat(names["predictions"]), torch.cat(plain))
    _close(torch.cat(names["predictions"]), _probabilities(names))


@pytest.fixture
def template(names: Names) -> Iterator[Names]:
    """The model zoo's template for classification in the place of the page's bundle: single slices with labels, metrics."""
    shutil.rmtree("my_bundle")
    shutil.copytree(TEMPLATE, "my_bundle")
    parser = ConfigParser()
    parser.read_config("my_bundle/configs/inference.yaml")
    network, generator, samples = parser.get_parsed_content("network_def"), np.random.default_rng(5), []
    for folder in ("data", "models"):
        Path("my_bundle", folder).mkdir()
    torch.save(network.state_dict(), "my_bundle/models/model.pt")
    for label in range(3):
        path = f"my_bundle/data/{label}.nii.gz"
        nib.save(nib.Nifti1Image(generator.normal(size=(67, 45)).cumsum(0).astype(np.float32), np.diag([1.5, 0.8, 1, 1])), path)
        samples.append({"image": path, "label": label % 2})
    Path("my_bundle/data/samples.json").write_text(json.dumps(samples), encoding="utf-8")
    yield {**names, "network": network.eval(), "samples": samples}
    set_determinism(None)  # which the bundle has set


def test_a_zoo_bundle_may_take_the_place_of_the_page_s(template: Names) -> None:
    found = _run("A bundle's config", template)["found"]
    _run("create_workflow, with settings", template)
    for case, sample in zip(found, template["samples"], strict=True):
        image = nib.load(sample["image"])
        scaled = (image.get_fdata() - image.get_fdata().min()) / np.ptp(image.get_fdata())
        seen = torch.from_numpy(scaled.astype(np.float32))[None, None]
        expected = decompose(template["network"], seen)
        assert case["pred"].argmax() == expected.logits.argmax()  # the bundle's postprocessing leaves one-hot vectors
        _close(case["ifim_high"].as_tensor(), expected.high[0])
        np.testing.assert_allclose((case["ifim_high"] + case["ifim_low"]).as_tensor(), seen[0], atol=1e-5)
        sidecar = read_sidecar(Path("results/workflow", _name(sample["image"]), f"{_name(sample['image'])}_ifim.json"))
        _close(sidecar["eigenvalues"], decompose(template["network"], seen, energy=0.95).eigenvalues[0])
        assert (sidecar["model"]["bundle"], selection(sidecar["settings"])) == ("Four classes", {"energy": 0.95})


class TestWarnings:
    """The page's warnings are true."""

    @pytest.mark.parametrize(("given", "writes"), [(None, True), ("$None", False)])
    def test_create_workflow_drops_none(self, given: str | None, writes: bool, names: Names) -> None:
        files = ["my_bundle/configs/inference.yaml", str(configs_folder() / "ifim.yaml")]
        workflow = create_workflow(config_file=files, bundle_root="my_bundle", **{"ifim#output_dir": given})
        assert (workflow.parser.get_parsed_content("ifim").writer is not None) is writes

    def test_initialized_twice_a_workflow_is_built_anew(self, names: Names) -> None:
        workflow = create_workflow(config_file="my_bundle/configs/inference.yaml", workflow_type="infer")
        first = workflow.evaluator
        workflow.initialize()
        assert workflow.evaluator is not first
        assert ConfigWorkflow("my_bundle/configs/inference.yaml").workflow_type == "train"

    def test_the_preprocessing_has_to_be_the_very_object(self, names: Names) -> None:
        image = names["preprocessing"]({"image": names["scans"][0]})["image"]
        components = IFIMDecompose(names["network"])(image)
        with pytest.raises(GeometryError, match="pass the same object"):
            SaveIFIM("out", preprocessing=_run(SETUP, {})["preprocessing"])(image, components)

    def test_components_are_there_from_model_completed_on(self, names: Names) -> None:
        evaluator = SupervisedEvaluator(torch.device("cpu"), names["loader"], names["network"])
        early, late = [], []
        evaluator.add_event_handler(IterationEvents.FORWARD_COMPLETED, lambda engine: early.extend(engine.state.output))
        evaluator.add_event_handler(IterationEvents.MODEL_COMPLETED, lambda engine: late.extend(engine.state.output[0]))
        IFIMHandler().attach(evaluator)
        evaluator.run()
        assert early == 2 * ["image", "label", "pred"]
        assert late.count("ifim_high") == 2

    @pytest.mark.parametrize("mode", [True, False])
    @pytest.mark.parametrize("stage", ["predict", "test", "validate"])
    def test_every_stage_and_both_modes_of_lightning_will_do(self, stage: str, mode: bool, names: Names) -> None:
        found = []

        def step(network: nn.Module, image: Tensor) -> None:
            assert torch.is_inference_mode_enabled() is mode
            found.append(decompose(network, image).high)

        getattr(_trainer(inference_mode=mode), stage)(_Stepping(names["network"], step), names["loader"])
        _close(torch.cat(found), torch.cat([_expected(names, scan).high for scan in names["scans"]]))

    def test_lightning_takes_a_decomposition_as_prediction(self, names: Names) -> None:
        predictions = _trainer().predict(_Stepping(names["network"], decompose), names["loader"])
        assert all(isinstance(found, Decomposition) for found in predictions)
        _close(torch.cat([found.high for found in predictions]), torch.cat([_expected(names, s).high for s in names["scans"]]))

    def test_mixed_precision_reaches_the_step(self, names: Names) -> None:
        def exempt(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
            with torch.autocast(image.device.type, enabled=False):
                return step(network, image)

        def step(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
            d = decompose(network, image)
            return {"logits": d.logits, "eigenvalues": d.eigenvalues}

        mixed, full = (
            _trainer(precision="bf16-mixed").predict(_Stepping(names["network"], one), names["loader"]) for one in (step, exempt)
        )
        assert (mixed[0]["logits"].dtype, full[0]["logits"].dtype) == (torch.bfloat16, torch.float32)
        _close(full[0]["eigenvalues"][0], _expected(names, names["scans"][0]).eigenvalues[0])

    def test_mixed_precision_does_not_reach_the_callback(self, names: Names) -> None:
        page = _run("A Lightning callback", names)
        callback = page["SaveComponents"]("mixed", names["preprocessing"])
        trainer = _trainer(precision="bf16-mixed", callbacks=[callback])
        assert trainer.predict(page["Classifier"](names["network"]), names["loader"])[0].dtype == torch.bfloat16
        _check_files("mixed", names, energy=0.95)

    def test_an_evaluator_in_train_mode_moves_the_running_statistics(self, names: Names) -> None:
        network, first = names["network"], names["scans"][0]
        before = network(_seen(first))
        evaluator = SupervisedEvaluator(
            torch.device("cpu"), names["loader"], network, mode="train", val_handlers=[handler := IFIMHandler()]
        )
        with pytest.warns(UserWarning, match="train mode"):
            evaluator.run()
        assert handler.cases == 3
        assert not torch.equal(network(_seen(first)), before)


class _Stepping(lightning.LightningModule):
    """A module whose step is given."""

    def __init__(self, network: nn.Module, step: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.network, self.step = network, step

    def predict_step(self, batch: Names, batch_idx: int) -> Any:
        return self.step(self.network, batch["image"])

    test_step = validation_step = predict_step


def _trainer(**settings: Any) -> lightning.Trainer:
    return lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, **settings)


def _name(scan: str) -> str:
    return Path(scan).name.split(".")[0]


def _seen(scan: str) -> Tensor:
    """The network's input [1, 1, *spatial] by nibabel and numpy alone: turned from LPS to RAS, scaled to [0, 1]."""
    values = nib.load(scan).get_fdata(dtype=np.float32)[::-1, ::-1]
    return torch.from_numpy((values - values.min()) / np.ptp(values))[None, None]


def _of_scan(values: Array | Tensor) -> Array:
    """From the network's grid to the scan's own, [i, j, k] each."""
    return np.asarray(values)[::-1, ::-1]


def _expected(names: Names, scan: str, **selection: Any) -> Decomposition:
    return decompose(names["network"], _seen(scan), **selection)


def _probabilities(names: Names) -> Tensor:
    """[scan, C] of plain forward passes."""
    with torch.no_grad():
        return torch.cat([names["network"](_seen(scan)).softmax(1) for scan in names["scans"]])


def _close(found: Any, expected: Any) -> None:
    """Close in norm: a batch may change the last digit of a sum, and with it the side of a rectifier."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) <= 0.01 * np.linalg.norm(expected)


def _collected(evaluator: SupervisedEvaluator) -> list[Names]:
    """A list that collects the evaluator's outputs, one dictionary per image."""
    found: list[Names] = []
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: found.extend(engine.state.output))
    return found


def _check_items(found: list[Names], names: Names, **selection: Any) -> None:
    """One dictionary a scan with the scan's components; the prediction went through a softmax."""
    for case, scan in zip(found, names["scans"], strict=True):
        expected = _expected(names, scan, **selection)
        rank = int(expected.rank[0])
        assert case["ifim_rank"] == rank
        _close(case["pred"].as_tensor(), names["network"](_seen(scan))[0].softmax(0).detach())
        _close(case["ifim_high"].as_tensor(), expected.high[0])
        _close(case["ifim_eigenvalues"][:rank], expected.eigenvalues[0, :rank])
        np.testing.assert_allclose((case["ifim_high"] + case["ifim_low"]).as_tensor(), _seen(scan)[0], atol=1e-5)
        np.testing.assert_allclose(np.diag(case["ifim_high"].affine), [1.0, 1.2, 2.5, 1.0], atol=1e-6)


def _check_files(folder: str, names: Names, **kept: Any) -> list[Names]:
    """Each scan's files lie on its own grid and hold its components; the sidecars."""
    assert sorted(path.name for path in Path(folder).iterdir() if path.is_dir()) == [_name(scan) for scan in names["scans"]]
    sidecars = []
    for scan in names["scans"]:
        expected = _expected(names, scan, **kept)
        stem = f"{folder}/{_name(scan)}/{_name(scan)}_ifim"
        high, low, first = (nib.load(f"{stem}_{content}.nii.gz") for content in ("high", "low", "eigenvector-01"))
        np.testing.assert_allclose(high.affine, nib.load(scan).affine, atol=1e-6)
        _close(high.get_fdata(), _of_scan(expected.high[0, 0]))
        _close(first.get_fdata(), _of_scan(expected.eigenvectors[0, 0, 0]))
        np.testing.assert_allclose(high.get_fdata() + low.get_fdata(), _of_scan(_seen(scan)[0, 0]), atol=1e-5)
        sidecar = read_sidecar(Path(f"{stem}.json"))
        _close(sidecar["eigenvalues"], expected.eigenvalues[0])
        _close(sidecar["prediction"]["logits"], expected.logits[0])
        assert selection(sidecar["settings"]) == kept
        sidecars.append(sidecar)
    return sidecars
