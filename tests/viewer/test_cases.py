"""What the viewer reads of a run, without a browser."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from monai_ifim.viewer.cases import ViewerError, check_whole, facts, read_case, viewable_cases

HEAVY = {"torch", "monai", "pandas", "itk", "vtkmodules", "slicer", "trame", "aiohttp"}
TILTED = "a tilted"


@pytest.fixture
def copy(run: Any, tmp_path: Path) -> Path:
    """A copy of the run, to spoil."""
    return Path(shutil.copytree(run.output, tmp_path / "copy"))


def spoil(copy: Path, change: Any) -> None:
    path = copy / TILTED / f"{TILTED}_ifim.json"
    sidecar = json.loads(path.read_text())
    change(sidecar)
    path.write_text(json.dumps(sidecar))


def test_cases_are_the_folders_with_a_sidecar_of_their_name(copy: Path, run: Any) -> None:
    (copy / "other").mkdir()
    (copy / "other" / "another_ifim.json").write_text("{}")
    assert list(viewable_cases(copy)) == sorted(run.cases)


def test_folder_without_cases_is_refused_with_what_to_do(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ViewerError, match="run `monai-ifim decompose` first"):
        viewable_cases(tmp_path / "empty")
    with pytest.raises(ViewerError, match="choose one of the runs in it: copy"):
        viewable_cases(tmp_path)
    with pytest.raises(ViewerError, match="no such folder"):
        viewable_cases(tmp_path / "absent")


def test_layers_are_the_files_of_the_case_with_their_windows_and_units(run: Any) -> None:
    case = read_case(run.output, TILTED)
    assert [layer.content for layer in case.backgrounds] == ["source", "input"]
    assert [layer.content for layer in case.overlays] == ["sensitivity", "high", "low", "eigenvector 1", "eigenvector 2"]
    assert [layer.kind for layer in case.overlays] == ["sensitivity", "signed", "image", "signed", "signed"]
    assert [layer.unit for layer in (*case.backgrounds, *case.overlays[:2])] == [
        "Hounsfield units", "network input intensity", "nats per (network input intensity on the network's grid)²",
        "network input intensity",
    ]  # fmt: skip
    assert case.overlays[3].title == "Component 1 (60.0\xa0% of the sensitivity)"
    for layer in (*case.backgrounds, *case.overlays):
        values = np.asarray(nib.load(layer.file).dataobj)
        low, high = layer.window
        assert low < high
        assert high <= values.max()


def test_channels_follow_their_first(copy: Path) -> None:
    def add(sidecar: dict[str, Any]) -> None:
        for entry in list(sidecar["files"]):
            sidecar["files"].append(entry | {"channel": 2})

    spoil(copy, add)
    case = read_case(copy, TILTED)
    assert [layer.content for layer in case.overlays[:4]] == ["sensitivity", "sensitivity, channel 2", "high", "high, channel 2"]
    assert [layer.kind for layer in case.overlays[:4]] == ["sensitivity", "sensitivity", "signed", "signed"]
    assert case.overlays[3].title == "Sensitive part (high), channel 2"


@pytest.mark.parametrize("name", ["../secret.nii.gz", "/etc/passwd", "a/b.nii.gz", "..", "", "b\\c.nii.gz", "a.json"])
def test_sidecar_that_leads_out_of_its_folder_is_refused(copy: Path, name: str) -> None:
    spoil(copy, lambda sidecar: sidecar["files"][1].update(file=name))
    with pytest.raises(ViewerError, match="not a volume in its folder"):
        read_case(copy, TILTED)


def test_sidecars_that_cannot_be_shown_are_refused_in_one_line(copy: Path) -> None:
    spoil(copy, lambda sidecar: sidecar["files"][1].update(window=None))
    with pytest.raises(ViewerError, match="no display window.*--overwrite"):
        read_case(copy, TILTED)
    spoil(copy, lambda sidecar: sidecar.update(schema_version="3.0"))
    with pytest.raises(ViewerError, match=r"schema version 3.0; this program reads 1\.x and 2\."):
        read_case(copy, TILTED)
    spoil(copy, lambda sidecar: sidecar.pop("schema_version"))
    with pytest.raises(ViewerError, match="not a readable sidecar"):
        read_case(copy, TILTED)


def test_every_written_volume_is_whole_and_a_shorter_one_is_not(run: Any, tmp_path: Path) -> None:
    for path in (run.output / TILTED).glob("*.nii.gz"):
        check_whole(path)
    content = path.read_bytes()
    for left in (0, 3, 200, len(content) - 1):
        (tmp_path / "short.nii.gz").write_bytes(content[:left])
        with pytest.raises(ViewerError, match="run the case again"):
            check_whole(tmp_path / "short.nii.gz")
    with pytest.raises(ViewerError, match="run the case again"):
        check_whole(tmp_path / "absent.nii.gz")


def test_facts_are_those_of_the_sidecar(run: Any) -> None:
    found = facts(read_case(run.output, TILTED))
    assert found["answer"] == "lesion"
    assert [(row["name"], row["text"]) for row in found["answers"]] == [
        ("lesion", "0.812"), ("no lesion", "0.125"), ("motion", "0.0625")
    ]  # fmt: skip
    assert [(row["text"], row["share"]) for row in found["spectrum"]] == [("0.750", "60.0\xa0%"), ("0.250", "20.0\xa0%")]
    settings = {row["name"]: row["text"] for row in found["settings"]}
    assert settings["Model"] == "Toy 1.2"
    assert settings["Components kept"] == "2 (80.0\xa0% of the sensitivity)"
    assert settings["Input"] == " \N{MULTIPLICATION SIGN} ".join(("23", "29", "13"))


def test_of_many_answers_the_likeliest_are_shown(copy: Path) -> None:
    values = {f"class {i}": i / 100 for i in range(14)}
    spoil(copy, lambda sidecar: sidecar["prediction"].update(probability=values))
    found = facts(read_case(copy, TILTED))
    assert [row["name"] for row in found["answers"]] == [f"class {i}" for i in range(13, 5, -1)]
    assert found["answers_left"] == 6


def test_predicted_values_keep_the_order_of_the_network(copy: Path) -> None:
    def regress(sidecar: dict[str, Any]) -> None:
        sidecar["prediction"] = {"class": None, "mean": {"age": 3.25, "volume": 41.5}, "logits": [3.25, 41.5]}

    spoil(copy, regress)
    found = facts(read_case(copy, TILTED))
    assert found["answer"] is None
    assert [(row["name"], row["text"]) for row in found["answers"]] == [("age", "3.25"), ("volume", "41.5")]


def test_reading_a_run_loads_neither_torch_nor_vtk() -> None:
    """The viewer's process has VTK and need not have torch; its help has neither."""
    code = (
        "import sys, monai_ifim, monai_ifim.report, monai_ifim.cli.view, monai_ifim.viewer.launch; "
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_saturated_case_says_so_and_is_grey(copy: Path) -> None:
    usual = read_case(copy, TILTED)
    assert facts(usual)["saturated"] == ""
    spoil(copy, lambda sidecar: sidecar.update(saturation={"nats": 3e-9, "bound": 1e-6, "saturated": True}))
    case = read_case(copy, TILTED)
    assert {layer.kind for layer in case.overlays} == {"image"}
    assert [layer.window for layer in case.overlays] == [layer.window for layer in usual.overlays]
    assert "would cost 3.00e\N{MINUS SIGN}9 nats" in facts(case)["saturated"]
