"""`monai-ifim demo`: files, sentences and pages; its answers are right, and the pages quote what it finds."""

from __future__ import annotations

import json
import shutil
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from docs.figures.demo import differences, read_results, results_of
from monai_ifim.cli.main import app
from monai_ifim.evaluation.demo_cases import DemoCase, demo_cases, find, sensitivity_peak
from monai_ifim.io import read_sidecar

pytestmark = pytest.mark.slow  # three cases with their pages
DETECTOR, SEGMENTER = "lumpy_lesion_detection_3d", "lumpy_segmentation_3d"


class Ran(NamedTuple):
    """A run of the demo. opened: the addresses that the browser was told."""

    output: Path
    result: Result
    cases: dict[str, DemoCase]
    opened: list[str]

    def folder(self, bundle: str) -> Path:
        return self.output / bundle / self.cases[bundle].image.name.partition(".")[0]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    output = tmp_path_factory.mktemp("demo") / "ifim_demo"
    opened: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", ":9")
        patch.setattr(webbrowser, "open", opened.append)
        result = CliRunner().invoke(app, ["demo", "-o", str(output)])
    assert result.exit_code == 0, result.output
    return Ran(output, result, {case.bundle: case for case in demo_cases(output / "input")}, opened)


def test_every_case_is_whole(ran: Ran) -> None:
    for bundle, case in ran.cases.items():
        folder = ran.folder(bundle)
        stem = f"{folder.name}_ifim"
        parts = {}
        for name in ("input", "high", "low", "sensitivity", "eigenvector-01"):
            image = nib.load(folder / f"{stem}_{name}.nii.gz")
            parts[name] = image.get_fdata()
            assert case.lesion is None or image.shape == (32, 32, 32)
        np.testing.assert_allclose(parts["high"] + parts["low"], parts["input"], rtol=0, atol=1e-5 * np.ptp(parts["input"]))
        assert read_sidecar(folder / f"{stem}.json")["rank"] >= 1
        assert {"cases.csv", "run.json", "index.html"} <= {path.name for path in folder.parent.iterdir()}


def test_every_answer_is_right_and_sure_and_said_in_a_sentence(ran: Ran) -> None:
    said = " ".join(ran.result.output.split())
    for bundle, case in ran.cases.items():
        found = find(case, ran.folder(bundle))
        assert found.right, found.sentence
        assert " ".join(found.sentence.split()) in said
        if case.head == "categorical":
            sidecar = read_sidecar(ran.folder(bundle) / f"{ran.folder(bundle).name}_ifim.json")
            assert sidecar["prediction"]["probability"][case.answer] > 0.9


@pytest.mark.parametrize("bundle", [DETECTOR, SEGMENTER])
def test_the_peak_is_where_the_lesion_was_planted(ran: Ran, bundle: str) -> None:
    lesion = ran.cases[bundle].lesion
    assert lesion is not None
    values = nib.load(ran.folder(bundle) / f"{ran.folder(bundle).name}_ifim_sensitivity.nii.gz").get_fdata()
    (voxel,) = np.argwhere(values == values.max())
    peak = sensitivity_peak(ran.folder(bundle), lesion)
    np.testing.assert_allclose(peak.place, 2.0 * voxel)  # voxels of 2 mm from the origin
    assert peak.distance == pytest.approx(np.linalg.norm(2.0 * voxel - np.asarray(lesion.centre)))
    assert peak.inside
    assert lesion.mask[tuple(voxel)] == 1


def test_a_wrong_answer_and_a_peak_elsewhere_are_said(ran: Ran) -> None:
    case = ran.cases[DETECTOR]
    assert case.lesion is not None
    wrong = find(replace(case, answer="no lesion"), ran.folder(DETECTOR))
    assert not wrong.right
    assert "but it is no lesion" in wrong.sentence
    moved = replace(case.lesion, mask=case.lesion.mask.roll(16, 0), centre=(0.0, 0.0, 0.0))
    elsewhere = find(replace(case, lesion=moved), ran.folder(DETECTOR))
    assert not elsewhere.right
    assert elsewhere.sentence.endswith("mm from the centre, outside of it.")
    with pytest.raises(ValueError, match="voxels of sensitivity"):
        sensitivity_peak(ran.folder(DETECTOR), replace(case.lesion, mask=case.lesion.mask[1:]))


def test_half_of_the_sensitivity_lies_in_the_area_stated(ran: Ran, tmp_path: Path) -> None:
    """A map of three equal pixels and one that is as large as the three: one pixel holds half."""
    bundle = "mednist_classification"
    folder = tmp_path / ran.folder(bundle).name
    shutil.copytree(ran.folder(bundle), folder)
    values = np.zeros((40, 25, 1), dtype=np.float32)
    values[3, 4], values[7, 8], values[9, 9], values[20, 20] = 1, 1, 1, 3
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 5.0, 1.0, 1.0])), folder / f"{folder.name}_ifim_sensitivity.nii.gz")
    said = find(ran.cases[bundle], folder).sentence.replace("\N{NO-BREAK SPACE}", " ")
    assert said.endswith("Half of the sensitivity lies in 0.100 cm² of the 100 cm² of the slice.")


def test_the_first_page_is_opened_where_there_is_a_screen_unless_unwanted(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran.opened == [(ran.output / "mednist_classification" / "index.html").resolve().as_uri()]
    for bundle in ran.cases:
        assert str(ran.output / bundle / "index.html") in ran.result.output


def test_quiet_and_json_open_nothing_and_json_holds_pages_and_sentences(
    ran: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first case alone."""
    monkeypatch.setenv("DISPLAY", ":9")
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail(f"opened {address}"))
    first = next(iter(ran.cases.values()))
    monkeypatch.setattr("monai_ifim.evaluation.demo_cases.demo_cases", lambda *_: [first])
    quiet = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "a"), "--quiet"])
    assert (quiet.exit_code, quiet.output) == (0, "")
    result = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "b"), "--json"])
    content = json.loads(result.stdout)
    page = str(tmp_path / "b" / first.bundle / "index.html")
    assert (content["command"], content["page"], content["pages"]) == ("demo", page, [page])
    assert content["findings"] == [find(first, ran.folder(first.bundle)).sentence]
    assert [case["status"] for case in content["cases"]] == ["done"]


def test_numbers_of_the_pages_are_the_demos(ran: Ran) -> None:
    assert differences(read_results(), results_of(ran.output)) == [], "run python -m docs.figures"
