"""Whole experiments: the small one that comes with the package, resuming, failures, somebody's bundle without code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.cli.main import app
from monai_ifim.core import IFIMError, decompose
from monai_ifim.evaluation.classifiers.bundles import BundleTask
from monai_ifim.evaluation.classifiers.datalist import list_labelled
from monai_ifim.evaluation.classifiers.models import EvaluatedClassifier, Model
from monai_ifim.evaluation.classifiers.tasks import Sample
from monai_ifim.evaluation.experiment import Experiment, load_experiment, only, parse_overrides, run_experiment
from monai_ifim.evaluation.measuring.cells import weights_sha256
from monai_ifim.evaluation.measuring.observation import ObservationSettings, Observer, overlap
from monai_ifim.evaluation.measuring.perturbations import PerturbationSettings, redraw
from monai_ifim.evaluation.measuring.subspaces import Subspaces, split_eigenvectors
from monai_ifim.evaluation.records import FailedCell
from monai_ifim.io import InputError
from monai_ifim.io.installation import resolve_experiment
from monai_ifim.run.cases import find_cases

SETTINGS = ObservationSettings(PerturbationSettings(relative_norms=(0.0, 0.01, 0.1), draws=2))


class Quiet:
    """A report that notes how often images were gone through."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []

    def cell(self, name: str, done: int, total: int) -> None:
        pass

    def advance(self, stage: str, done: int, total: int) -> None:
        pass

    def failed(self, name: str, reason: str) -> None:
        self.failures.append((name, reason))


IMAGES = 4  # too few for a p value: signs are checked, not sizes


def smaller(path: Path) -> Path:
    """The package's small experiment with fewer and smaller images, norms and epochs."""
    content = yaml.safe_load(resolve_experiment("quick").read_text())
    content["images"] = IMAGES
    content["perturbations"]["relative_norms"] = [0, 0.02, 0.2]
    for task, shape, place in zip(content["tasks"], ([24, 32], [8, 16, 12]), ([11, 20], [4, 9, 6]), strict=True):
        task |= {"training_images": 128, "test_images": 40}
        task["parameters"] |= {"shape": shape, "place": place, "margin": 3, "lesion_amplitude": 5.0}
    for model in content["models"]:
        model |= {"epochs": 2, "batch_size": 16}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A smaller form of the package's small experiment, run by the command line."""
    folder = tmp_path_factory.mktemp("quick")
    words = ["evaluate", str(smaller(folder / "quick.yaml")), "--output", str(folder / "out"), "--cache", str(folder / "cache")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    return folder, json.loads((folder / "out" / "results.json").read_text())


def test_in_every_cell_of_the_small_experiment_high_moves_the_answer_more(quick: tuple[Path, dict[str, Any]]) -> None:
    _, results = quick
    assert {(cell["task"], cell["architecture"]) for cell in results["cells"]} == {
        (task, architecture) for task in ("lumpy_2d_known", "lumpy_3d_known") for architecture in ("ResNet18", "ViT")
    }
    for cell in results["cells"]:
        assert cell["images"] == IMAGES
        found = {
            (row["second"], row["measure"]): row
            for row in cell["comparisons"]
            if row["first"] == "noise_high" and row["kind"] == "area"
        }
        for second in ("noise_low", "noise_random", "noise_twin"):
            for measure in ("absolute_change", "divergence"):
                assert found[second, measure]["low"] > 0, (cell["task"], cell["architecture"], second, measure)
    assert (results["claim"]["total"]["cells"], results["claim"]["total"]["favourable"]) == (4, 4)


def test_every_measurement_is_kept_and_a_draw_can_be_made_again(quick: tuple[Path, dict[str, Any]]) -> None:
    folder, results = quick
    table = pd.read_parquet(folder / "out" / "measurements.parquet")
    images = pd.read_csv(folder / "out" / "images.csv")
    assert len(images) == 4 * IMAGES
    assert table.groupby(["task", "architecture"])["image"].nunique().tolist() == [IMAGES] * 4
    grid = results["relative_norms"]
    noise = table[table["family"] == "noise_low"]
    assert sorted(noise["relative_norm"].unique()) == pytest.approx(grid)
    assert len(noise) == 4 * IMAGES * 2 * len(grid)
    np.testing.assert_allclose(table["absolute_change"], table["probability_change"].abs())

    experiment = load_experiment(folder / "quick.yaml")
    task, model = experiment.tasks[0], experiment.models[0]
    network = model.classifier(task, folder / "cache", lambda done, total: pytest.fail("trained again")).network
    row = noise[(noise["task"] == task.name) & (noise["architecture"] == model.architecture)].iloc[-1]
    sample = next(s for s in task.testing() if s.name == row["image"])
    whole = decompose(network, sample.image[None], energy=1.0)
    leading, trailing = split_eigenvectors(whole, 0)
    direction = redraw("noise_low", int(row["seed"]), Subspaces(leading, trailing, None), {})
    with torch.no_grad():
        moved = network((sample.image + row["norm"] * direction).float()[None])
    assert moved.double().softmax(1)[0, 0].item() == pytest.approx(row["p00"], rel=1e-4)


def test_the_page_and_its_figures_are_written(quick: tuple[Path, dict[str, Any]]) -> None:
    folder, results = quick
    page = (folder / "out" / "report.html").read_text(encoding="utf-8")
    for cell in results["cells"]:
        assert cell["task_title"].replace("'", "&#39;") in page
    assert str(folder) not in page + json.dumps(results)


def test_a_second_run_measures_nothing_again(quick: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, results = quick
    monkeypatch.setattr(Observer, "observe", lambda *_: pytest.fail("observed again"))
    again = run_experiment(load_experiment(folder / "quick.yaml"), folder / "out", folder / "cache", Quiet())
    assert asdict(again.claim) == results["claim"]
    assert [asdict(c) for c in again.cells[1].comparisons] == results["cells"][1]["comparisons"]


@pytest.mark.soak
def test_the_example_in_the_documentation_runs(
    quick: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = quick
    text = (Path(__file__).resolve().parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(example) == 1
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").symlink_to(folder / "cache")
    pages: list[Path] = []
    monkeypatch.setattr("monai_ifim.report.experiment.page.write_report", pages.append)  # the fixture draws one
    monkeypatch.setattr("monai_ifim.io.installation.resolve_experiment", lambda name: folder / f"{name}.yaml")
    exec(example[0], {})
    assert "cells=4" in capsys.readouterr().out
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    assert [cell["images"] for cell in results["cells"]] == [3] * 4
    assert pages == [Path("results")]


def test_an_evaluation_in_the_folder_of_the_scans_adds_no_case(quick: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = quick
    images = [path for path in (folder / "out").rglob("*") if path.suffix in (".png", ".npz")]
    assert images
    with pytest.raises(InputError, match=f"holds no image but {len(images)} results of earlier runs"):
        find_cases([folder / "out"])


class LinearModel(Model):
    """z = W x + b, with W seeded; the second architecture of one test fails on purpose."""

    def __init__(self, seed: int, classes: int = 3, fails: bool = False) -> None:
        self.name, self.seed, self.classes, self.fails = f"linear{seed}", seed, classes, fails

    def classifier(self, task: Any, cache: Path, progress: Any) -> EvaluatedClassifier:
        if self.fails:
            raise RuntimeError("the disk is full")
        size = task.testing()[0].image.numel()
        networks = [self._network(size, seed) for seed in (self.seed, self.seed + 1000, self.seed + 2000)]
        return EvaluatedClassifier(networks[0], networks[1], (networks[2],), "categorical", {})

    def _network(self, size: int, seed: int) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        layer = torch.nn.Linear(size, self.classes)
        with torch.no_grad():
            layer.weight.copy_(0.2 * torch.randn(self.classes, size, generator=generator))
            layer.bias.copy_(torch.randn(self.classes, generator=generator))
        return torch.nn.Sequential(torch.nn.Flatten(), layer).eval()


class DrawnTask:
    """A handful of random images."""

    name, title, note, class_names = "drawn", "Drawn", "", ("a", "b", "c")

    def __init__(self, count: int = 6) -> None:
        generator = torch.Generator().manual_seed(9)
        self.samples = [Sample(f"s{i}", 1 + torch.rand(1, 9, 7, generator=generator), i % 3) for i in range(count)]

    def testing(self) -> list[Sample]:
        return self.samples

    def chosen(self, count: int, seed: int) -> tuple[list[Sample], dict[str, str]]:
        return self.samples[:count], {"s99": "torn"}

    def describe(self) -> dict[str, Any]:
        return {"images": len(self.samples)}


def experiment_of(*models: Model, images: int = 6, settings: ObservationSettings = SETTINGS) -> Experiment:
    return Experiment("linear", (DrawnTask(),), models, settings, images=images, seed=3, resamples=99)  # type: ignore[arg-type]


def test_curves_of_a_linear_classifier_are_those_of_the_closed_form(tmp_path: Path) -> None:
    """Along u_1 and -u_1, all in float64 from W alone: the eigenvector, the probabilities, the divergence."""
    model = LinearModel(4)
    run_experiment(experiment_of(model), tmp_path, tmp_path, Quiet())
    table = pd.read_parquet(tmp_path / "measurements.parquet")
    layer = model._network(63, 4)[1]  # type: ignore[index]
    w, b = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
    for sample in DrawnTask().testing():
        x = sample.image.double().numpy().ravel()
        p = np.exp(w @ x + b) / np.exp(w @ x + b).sum()
        values, vectors = np.linalg.eigh(w.T @ (np.diag(p) - np.outer(p, p)) @ w)
        u = vectors[:, -1] * np.sign((w @ vectors[:, -1])[p.argmax()] - p @ (w @ vectors[:, -1]))
        for family, sign in (("step_plus", 1), ("step_minus", -1)):
            rows = table[(table["image"] == sample.name) & (table["family"] == family)].sort_values("relative_norm")
            for relative, row in zip((0.0, 0.01, 0.1), rows.to_dict("records"), strict=True):
                norm = relative * np.linalg.norm(x)
                z = w @ (x + sign * norm * u) + b
                q = np.exp(z) / np.exp(z).sum()
                assert row["probability_change"] == pytest.approx(q[p.argmax()] - p[p.argmax()], abs=2e-6)
                assert row["divergence"] == pytest.approx((p * np.log(p / q)).sum(), abs=2e-6, rel=1e-4)
                assert row["predicted_divergence"] == pytest.approx(norm**2 * values[-1] / 2, rel=1e-4)


def test_a_cell_that_fails_is_listed_while_the_others_go_on(tmp_path: Path) -> None:
    report = Quiet()
    summary = run_experiment(experiment_of(LinearModel(1, fails=True), LinearModel(2)), tmp_path, tmp_path, report)
    assert summary.failed == (FailedCell("drawn", "linear1", "RuntimeError: the disk is full"),)
    assert report.failures == [("drawn / linear1", "RuntimeError: the disk is full")]
    assert [(cell.architecture, cell.images) for cell in summary.cells] == [("linear2", 6)]
    assert summary.cells[0].skipped_images == {"s99": "torn"}


def test_more_images_add_to_those_that_are_there_and_other_settings_start_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    observed: list[str] = []
    observe = Observer.observe

    def noted(self: Observer, sample: Sample, seed: int) -> Any:
        observed.append(sample.name)
        return observe(self, sample, seed)

    monkeypatch.setattr(Observer, "observe", noted)
    run_experiment(experiment_of(LinearModel(1), images=2), tmp_path, tmp_path, Quiet())
    run_experiment(experiment_of(LinearModel(1), images=4), tmp_path, tmp_path, Quiet())
    assert observed == ["s0", "s1", "s2", "s3"]
    other = ObservationSettings(SETTINGS.perturbations, rank=1)
    run_experiment(experiment_of(LinearModel(1), images=2, settings=other), tmp_path, tmp_path, Quiet())
    assert observed == ["s0", "s1", "s2", "s3", "s0", "s1"]


@pytest.mark.parametrize("place", ["cells", "cells/drawn", "cells/drawn/linear1", "cells/drawn/linear1/images"])
def test_a_link_below_the_output_is_neither_filled_nor_emptied(place: str, tmp_path: Path) -> None:
    elsewhere, out = tmp_path / "elsewhere", tmp_path / "out"
    for folder in (elsewhere, elsewhere / "images", elsewhere / "linear1" / "images", elsewhere / "drawn" / "linear1" / "images"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "s0.json").write_text("theirs")
        (folder / "identity.json").write_text('{"fingerprint": "another"}')
    (out / place).parent.mkdir(parents=True)
    (out / place).symlink_to(elsewhere)
    before = {path: path.is_file() and path.read_bytes() for path in elsewhere.rglob("*")}
    summary = run_experiment(experiment_of(LinearModel(1), images=2), out, tmp_path, Quiet())
    assert f"{out / place}: is a link to another place" in summary.failed[0].reason
    assert {path: path.is_file() and path.read_bytes() for path in elsewhere.rglob("*")} == before
    (out / place).unlink()  # the cure
    assert run_experiment(experiment_of(LinearModel(1), images=2), out, tmp_path, Quiet()).failed == ()


def test_images_in_folders_named_by_a_dicom_uid_are_kept_apart(tmp_path: Path) -> None:
    """A name's part after a dot is no ending: all images of one folder would be one file."""
    entries = [{"image": f"1.2.840.10008/{i}.5.dcm", "label": 0} for i in (7, 8)] + [{"image": "1.2.840.9/7.5.dcm", "label": 0}]
    (tmp_path / "list.json").write_text(json.dumps(entries))
    names = [name for name, _, _ in list_labelled(tmp_path / "list.json", None)]
    assert len(set(names)) == 3
    task = DrawnTask(3)
    task.samples = [Sample(name, sample.image, 0) for name, sample in zip(names, task.samples, strict=True)]
    experiment = Experiment("uids", (task,), (LinearModel(1),), SETTINGS, images=3, resamples=99)  # type: ignore[arg-type]
    run_experiment(experiment, tmp_path, tmp_path, Quiet())
    table = pd.read_parquet(tmp_path / "measurements.parquet")
    start = table[table["relative_norm"] == 0].groupby("image")["p00"].first()
    assert set(start.index) == set(names)
    assert start.nunique() == 3


def test_an_image_without_information_is_skipped_and_said(tmp_path: Path) -> None:
    task = DrawnTask(3)
    task.samples[1] = Sample("dark", torch.zeros(1, 9, 7), 1)
    experiment = Experiment("dark", (task,), (LinearModel(1),), SETTINGS, images=3, resamples=99)  # type: ignore[arg-type]
    summary = run_experiment(experiment, tmp_path, tmp_path, Quiet())
    assert summary.cells[0].images == 2
    assert "zero everywhere" in summary.cells[0].skipped_images["dark"]


def test_overlap_is_the_mean_squared_cosine_of_principal_angles() -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.linalg.qr(torch.randn(30, 3, generator=generator)).Q.T.reshape(3, 1, 5, 6) for _ in range(2))
    cosines = torch.linalg.svdvals(first.double().flatten(1) @ second.double().flatten(1).T)
    assert overlap(first, second) == pytest.approx(float(cosines.square().mean()))
    assert overlap(first, first.flip(0)) == pytest.approx(1.0)
    assert overlap(first, first[:1]) == pytest.approx(1 / 3)


@pytest.mark.slow
def test_somebodys_bundle_and_datalist_need_one_command(
    tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    scans = [write_scan(tmp_path / "scans" / f"s{i}.nii.gz", (9, 7, 11), oblique, shift=0.4 * i) for i in range(5)]
    entries = [{"image": str(path), "label": i % 3} for i, path in enumerate(scans)]
    entries.append({"image": str(tmp_path / "scans" / "gone.nii.gz"), "label": 2})
    (tmp_path / "labelled.json").write_text(json.dumps({"testing": entries}))
    words = ["evaluate", "bundle", "--bundle", bundle, "--datalist", tmp_path / "labelled.json", "--output", tmp_path / "out"]
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--set", "perturbations#draws=2"]])
    assert result.exit_code == 0, result.output
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    cell = results["cells"][0]
    assert (cell["task"], cell["architecture"], cell["images"]) == ("labelled", "bundle", 5)
    assert list(cell["skipped_images"]) == ["scans_gone"]
    table = pd.read_parquet(tmp_path / "out" / "measurements.parquet")
    loaded = load_bundle(bundle)
    with torch.no_grad():
        expected = loaded.network(loaded.preprocess(scans[3]).as_tensor()[None]).double().softmax(1)[0]
    row = table[(table["image"] == "scans_s3") & (table["relative_norm"] == 0)].iloc[0]
    np.testing.assert_allclose(row[["p00", "p01", "p02"]].to_numpy(float), expected.numpy(), rtol=1e-5)
    assert (row["label"], row["predicted"]) == (0, int(expected.argmax()))
    assert str(tmp_path) not in (tmp_path / "out" / "results.json").read_text()
    assert cell["classifier"]["weights_sha256"] == weights_sha256(loaded.network)


@pytest.mark.slow
def test_a_bundle_with_independent_labels_is_evaluated_label_by_label(
    tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    scans = [write_scan(tmp_path / "scans" / f"s{i}.nii.gz", (9, 7, 11), oblique, shift=0.4 * i) for i in range(4)]
    labels = [[1, 0, -1], [0, 1, 1], [1, 1, None], [0, 0, 0]]
    entries = [{"image": str(path), "label": label} for path, label in zip(scans, labels, strict=True)]
    (tmp_path / "labelled.json").write_text(json.dumps({"testing": entries}))
    words = ["evaluate", "bundle", "--bundle", bundle, "--datalist", tmp_path / "labelled.json", "--output", tmp_path / "out"]
    words += ["--set", "perturbations#draws=1", "--set", "perturbations#relative_norms=[0,0.05]"]
    refused = CliRunner().invoke(app, [str(word) for word in words])
    assert refused.exit_code == 3
    assert "--set head=bernoulli if the labels are independent" in " ".join(refused.output.split())
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--set", "head=bernoulli"]])  # the cure
    assert result.exit_code == 0, result.output
    cell = json.loads((tmp_path / "out" / "results.json").read_text())["cells"][0]
    loaded = load_bundle(bundle)
    with torch.no_grad():
        p = torch.cat([loaded.network(loaded.preprocess(scan).as_tensor()[None]) for scan in scans]).double().sigmoid().numpy()
    expected = roc_auc_score([1, 0, 1, 0], p[:, 0])
    table = pd.read_csv(tmp_path / "out" / "labels.csv")
    assert list(table["name"]) == list(loaded.identity.class_names) == [each["name"] for each in cell["labels"]]
    assert table["auroc"][0] == cell["labels"][0]["auroc"]["value"] == pytest.approx(expected)
    assert list(table["unknown"]) == [0, 0, 2]
    assert cell["by_class"] == {}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "none of them is the answer" in page
    assert "AUROC [95 % interval]" in page


def test_wrong_use_is_refused_with_the_cure(tmp_path: Path) -> None:
    for words, message in (
        (["nothing"], "experiments that come with the package"),
        (["bundle"], "pass --bundle"),
        (["quick", "--task", "lumpy"], "choose among lumpy_2d_known"),
        (["quick", "--set", "images"], "write NAME=VALUE"),
        (["quick", "--set", "perturbations#draws=0"], "draws is 0"),
    ):
        result = CliRunner().invoke(app, ["evaluate", *words, "--output", str(tmp_path / "out")])
        assert isinstance(result.exception, IFIMError), words
        assert message in str(result.exception)
    assert parse_overrides(["images=12", "tasks#0#name=x"]) == {"images": 12, "tasks#0#name": "x"}
    with pytest.raises(IFIMError, match="two models of one name"):
        experiment_of(LinearModel(1), LinearModel(1))


def test_classes_without_names_are_numbered_by_the_outputs(
    tmp_path: Path, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: np.ndarray
) -> None:
    bundle = make_bundle(tmp_path / "bundle", classes=4)
    (bundle / "configs" / "metadata.json").unlink()
    write_scan(tmp_path / "s.nii.gz", (9, 7, 11), oblique)
    (tmp_path / "list.json").write_text(json.dumps({"validation": [{"image": "s.nii.gz", "label": "class 2"}]}))
    task = BundleTask(str(bundle), str(tmp_path / "list.json"))
    assert task.class_names == ("class 0", "class 1", "class 2", "class 3")
    assert [sample.label for sample in task.testing()] == [2]
    assert BundleTask(str(bundle), str(tmp_path / "list.json"), class_names=("ill",)).class_names == ("not ill", "ill")


def test_only_keeps_the_order_of_the_experiment() -> None:
    chosen = only(load_experiment(resolve_experiment("quick")), None, ["ViT"])
    assert [task.name for task in chosen.tasks] == ["lumpy_2d_known", "lumpy_3d_known"]
    assert [model.architecture for model in chosen.models] == ["ViT"]
