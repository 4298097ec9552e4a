"""Tables of a folder from the sidecars in it, whoever wrote them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from torch import nn
from typer.testing import CliRunner

from monai_ifim import IFIMDecompose, SaveIFIM, read_cases, write_page
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import app
from monai_ifim.io import InputError, read_sidecar
from monai_ifim.run.cases import find_cases
from monai_ifim.run.folder_tables import refresh_tables
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings

pytestmark = pytest.mark.usefixtures("blank_figure")
SETTINGS = CaseSettings("categorical", rank=1, verify="never")


@pytest.fixture
def looped(tmp_path: Path, write_scan: Callable[..., Path], turned: Callable[..., npt.NDArray[Any]]) -> Path:
    """Two cases that a Python loop has saved, and nothing about both."""
    torch.manual_seed(3)
    preprocessing = Compose([LoadImaged("image"), EnsureChannelFirstd("image")])
    network = nn.Sequential(nn.Flatten(), nn.Linear(5 * 4 * 3, 3)).eval()
    decompose, save = IFIMDecompose(network, rank=1, locality=True), SaveIFIM(tmp_path / "loop", class_names=["a", "b", "c"])
    for shift, name in enumerate(("one", "two")):
        file = write_scan(tmp_path / f"{name}.nii.gz", (5, 4, 3), turned((1.1, 2.3, 3.1), (0.2, 0.1, -0.3)), shift=0.1 * shift)
        image = preprocessing({"image": file})["image"]
        save(image, decompose(image))
    return tmp_path / "loop"


def test_results_of_a_loop_get_tables_and_the_page(looped: Path) -> None:
    assert {path.name for path in looped.iterdir()} == {"one", "two"}
    page = write_page(looped)
    assert page == looped / "index.html"
    frame = read_cases(looped).set_index("case")
    for name in ("one", "two"):
        sidecar = read_sidecar(looped / name / f"{name}_ifim.json")
        assert frame.loc[name, "trace"] == sidecar["trace"]
        assert frame.loc[name, "prediction"] in page.read_text(encoding="utf-8")
    assert "data:image/" in page.read_text(encoding="utf-8")


def test_tables_that_say_the_same_are_left_alone(looped: Path) -> None:
    assert refresh_tables(looped)
    before = {name: (looped / name).stat().st_mtime_ns for name in ("cases.csv", "cases.parquet")}
    assert not refresh_tables(looped)
    assert {name: (looped / name).stat().st_mtime_ns for name in before} == before


def test_tables_follow_cases_that_come_go_and_change(looped: Path) -> None:
    refresh_tables(looped)
    shutil.rmtree(looped / "two")
    assert refresh_tables(looped)
    assert read_cases(looped)["case"].tolist() == ["one"]
    (looped / "cases.csv").write_text("case,status\n", encoding="utf-8")
    assert refresh_tables(looped)
    assert (looped / "cases.csv").read_text(encoding="utf-8").count("\n") == 2
    (looped / "cases.parquet").write_bytes(b"PAR1")
    assert refresh_tables(looped)
    assert read_cases(looped)["case"].tolist() == ["one"]


def test_failures_paths_and_times_of_a_run_stay(
    tmp_path: Path, make_bundle: Callable[..., Path], write_cohort: Callable[..., Path]
) -> None:
    scans, out = write_cohort(tmp_path / "in", 3), tmp_path / "out"
    (scans / "s001.nii.gz").write_bytes(b"")
    bundle = load_bundle(make_bundle(tmp_path / "bundle"))
    run_cases(bundle, find_cases([scans]), RunSettings(out, SETTINGS), lambda row: None)
    before = read_cases(out).set_index("case")
    assert not refresh_tables(out)
    shutil.rmtree(out / "s002")
    assert refresh_tables(out)
    after = read_cases(out).set_index("case")
    assert after["status"].to_dict() == {"s000": "done", "s001": "failed"}
    assert after.loc["s001", "reason"] == before.loc["s001", "reason"]
    assert after.loc["s000", ["path", "seconds"]].tolist() == before.loc["s000", ["path", "seconds"]].tolist()


def test_folders_of_epochs_are_named(looped: Path) -> None:
    with pytest.raises(InputError, match=r"no case in it, but in folders below \(loop\): name one of these"):
        write_page(looped.parent)
    write_page(looped.parent / "loop")


def test_a_folder_without_a_case_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no case in it: name the folder that was given to --output"):
        write_page(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        write_page(tmp_path / "gone")
    assert list(tmp_path.iterdir()) == []


def test_a_sidecar_that_cannot_be_read_is_a_failed_case(looped: Path) -> None:
    (looped / "two" / "two_ifim.json").write_text("{}", encoding="utf-8")
    write_page(looped)
    assert read_cases(looped).set_index("case")["status"].to_dict() == {"one": "done", "two": "failed"}


def test_the_command_writes_the_page(looped: Path) -> None:
    result = CliRunner().invoke(app, ["page", str(looped)])
    assert result.exit_code == 0
    assert f"To look at: {looped / 'index.html'}" in result.output
    assert sorted(path.name for path in looped.iterdir()) == ["cases.csv", "cases.parquet", "index.html", "one", "two"]
    refused = CliRunner().invoke(app, ["page", str(looped / "gone")])
    assert isinstance(refused.exception, InputError)
