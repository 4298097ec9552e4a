"""A head phantom through a bundle that was trained on simulated lumps: everything that people look at calls it saturated."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner

from monai_ifim import decompose, read_cases
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.cli.main import app
from monai_ifim.evaluation.demonstration import demo_slice, demo_volume, planted_lesion
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.io.planes import read_planes
from monai_ifim.report.cohort.planes import draw_picture_grid
from monai_ifim.viewer.cases import facts, read_case

SATURATED = "saturated: nothing here moves the answer"
BUNDLE = "lumpy_lesion_detection_3d"
MAPS = ("high", "sensitivity", "eigenvector")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Folder of the results, and lines of the console."""
    out = tmp_path_factory.mktemp("saturated") / "out"
    words = ["decompose", str(real_data / "dicom" / "ct_plain"), "--bundle", BUNDLE, "-o", str(out), "--dicom-pm"]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return out, done.output.splitlines()


def test_console_and_tables(run: tuple[Path, list[str]]) -> None:
    out, lines = run
    first = next(line for line in lines if line.strip())
    assert first.startswith("Lumpy lesion detection 3D, intended use: a toy on simulated volumes")
    of_case = next(line for line in lines if re.match(r"ok +ct_plain ", line))
    assert SATURATED in of_case
    assert "Far from what the bundle was made for: the modality is CT, made for simulated." in of_case
    assert any(re.search(r"ct_plain +lesion, saturated ", line) for line in lines)
    assert any(line.startswith(f"1 case {SATURATED}") for line in lines)
    case = read_cases(out).iloc[0]
    assert (case["saturated"], case["saturation"] < 1e-9) == ("yes", True)
    sidecar = json.loads((out / "ct_plain" / "ct_plain_ifim.json").read_text())
    assert sidecar["saturation"]["saturated"] is True
    assert sidecar["saturation"]["nats"] == pytest.approx(sidecar["eigenvalues"][0] * sidecar["saturation"]["contrast"] ** 2 / 2)
    assert sidecar["saturation"]["contrast"] == pytest.approx(32**1.5, rel=1e-3)  # of values of deviation 1
    assert "a toy on simulated volumes" in sidecar["model"]["intended_use"]


def test_page_is_grey_and_says_it(run: tuple[Path, list[str]]) -> None:
    out, _ = run
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Saturated: nothing here moves the answer." in page
    assert "a toy on simulated volumes" in page
    assert "Far from what the bundle was made for: the modality is CT" in page
    grid = draw_picture_grid(read_planes(out / "ct_plain" / "ct_plain_planes.npz"))
    assert {column.colors for column in grid.columns} == {"grey", "muted"}


def test_scene_is_grey_without_overlay_and_says_it_in_its_title(run: tuple[Path, list[str]]) -> None:
    scene = ET.parse(run[0] / "ct_plain" / "ct_plain.mrml").getroot()
    assert [chart.get("title") for chart in scene.iter("PlotChart")] == [
        f"Sensitivity by component (answer: lesion), {SATURATED}"
    ]
    assert {display.get("colorNodeID") for display in scene.iter("VolumeDisplay")} == {"vtkMRMLColorTableNodeGrey"}
    assert {view.get("foregroundVolumeID") for view in scene.iter("SliceComposite")} == {None}


def test_viewer_is_grey_and_says_it(run: tuple[Path, list[str]]) -> None:
    case = read_case(run[0], "ct_plain")
    assert facts(case)["saturated"].startswith("Saturated: nothing here moves the answer.")
    assert {layer.kind for layer in case.overlays} == {"image"}


def test_parametric_maps_say_it(run: tuple[Path, list[str]]) -> None:
    files = sorted((run[0] / "ct_plain").glob("*.dcm"))
    assert files
    for file in files:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        assert header.ContentDescription.startswith("Saturated: nothing moves the answer; ")
        assert "Saturated: nothing here moves the answer." in header.DerivationDescription


def test_figure_is_grey_and_says_it(real_data: Path) -> None:
    bundle = load_bundle(resolve_bundle(BUNDLE))
    d = decompose(bundle.network, bundle.preprocess(real_data / "dicom" / "ct_plain")[None], head="categorical")
    assert d.saturation[0].saturated is True
    figure = d.plot()
    assert SATURATED.upper() in figure.texts[0].get_text()
    maps = [axes for axes in figure.axes if axes.images and axes.get_label().startswith(MAPS) and "scale" not in axes.get_label()]
    assert len(maps) == 9
    for axes in maps:
        colors = axes.images[0].cmap(np.linspace(0, 1, 11))[:, :3]
        assert np.ptp(colors, axis=1).max() == 0  # red, green and blue alike
    assert "saturated" in repr(d)


def test_the_cases_of_the_demo_are_not(tmp_path: Path) -> None:
    images = {
        "mednist_classification": demo_slice(),
        BUNDLE: demo_volume(tmp_path),
        "lumpy_segmentation_3d": planted_lesion(tmp_path).path,
    }
    for name, path in images.items():
        bundle = load_bundle(resolve_bundle(name))
        head = "volumes" if "segmentation" in name else "categorical"
        d = decompose(bundle.network, bundle.preprocess(path)[None], head=head)
        assert d.saturation[0].saturated is False, name
        assert d.saturation[0].nats > 1e-3
