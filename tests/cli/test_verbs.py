"""The command line: exit status, what it prints, what it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from typer.testing import CliRunner, Result

from monai_ifim.cli.main import app, main
from monai_ifim.core.errors import IFIMError
from monai_ifim.io.seal import is_unaltered
from monai_ifim.run.table import SEAL

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "monai", "itk", "nibabel", "numpy", "scipy"}
pytestmark = pytest.mark.usefixtures("blank_figure")


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def run_python(*words: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, *(str(word) for word in words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(tmp_path / "bundle")


@pytest.fixture
def scan(tmp_path: Path, write_scan: Callable[..., Path], oblique: npt.NDArray[Any]) -> Path:
    return write_scan(tmp_path / "in" / "scan.nii.gz", (9, 7, 11), oblique)


def test_decompose_ends_with_0_and_writes_what_was_asked(bundle: Path, scan: Path, tmp_path: Path) -> None:
    words = ("--rank", 1, "--space", "network", "--save", "low, sensitivity", "--batch-size", 2, "--head", "categorical")
    result = invoke("decompose", scan, "--bundle", bundle, "-o", tmp_path / "out", *words)
    assert result.exit_code == 0
    assert "1 done, 0 failed" in result.output
    assert {path.name for path in (tmp_path / "out" / "scan").iterdir()} == {
        "scan.mrml",
        "scan_ifim.json",
        "scan_ifim_input.nii.gz",
        "scan_ifim_low.nii.gz",
        "scan_ifim_sensitivity.nii.gz",
        "scan_planes.npz",
        "scan_sensitivity.ctbl",
        "scan_signed.ctbl",
        "scan_spectrum.schema.tsv",
        "scan_spectrum.tsv",
    }
    sidecar = json.loads((tmp_path / "out" / "scan" / "scan_ifim.json").read_text())
    assert (sidecar["rank"], sidecar["space"]["name"], len(sidecar["locality_radius"])) == (1, "network", 1)


def test_decompose_ends_with_3_where_a_case_failed_and_says_which(bundle: Path, scan: Path, tmp_path: Path) -> None:
    (scan.parent / "bad.nii.gz").write_bytes(b"")
    result = invoke("decompose", scan.parent, "--bundle", bundle, "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "FAILED  bad: bad.nii.gz: the file is empty." in result.output
    assert "1 done, 1 failed" in result.output
    assert (tmp_path / "out" / "scan" / "scan_ifim.json").is_file()


def test_a_second_run_keeps_and_overwrite_makes_again(bundle: Path, scan: Path, tmp_path: Path) -> None:
    words = ("decompose", scan, "--bundle", bundle, "-o", tmp_path / "out")
    outputs = [invoke(*words).output, invoke(*words).output, invoke(*words, "--overwrite").output]
    assert ["1 kept" in output for output in outputs] == [False, True, False]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--energy", 0), "energy"),
        (("--rank", 0), "rank"),
        (("--space", "world"), "space"),
        (("--save", "halves"), "halves"),
        (("--batch-size", 0), "batch size"),
        (("--method", "magic"), "method"),
        (("--head", "magic"), "head"),
        (("--device", "magic"), "device"),
    ],
)
def test_wrong_settings_are_one_error_before_any_case(
    words: tuple[Any, ...], reason: str, bundle: Path, scan: Path, tmp_path: Path
) -> None:
    result = invoke("decompose", scan, "--bundle", bundle, "-o", tmp_path / "out", *words)
    assert isinstance(result.exception, IFIMError)
    assert reason in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_workers_of_the_local_engine_are_refused_with_the_commands_that_many_cases_runs(
    bundle: Path, scan: Path, tmp_path: Path
) -> None:
    result = invoke("decompose", scan, "--bundle", bundle, "-o", tmp_path / "out", "--workers", 2)
    assert isinstance(result.exception, IFIMError)
    said, page = str(result.exception), (ROOT / "docs" / "many_cases.md").read_text(encoding="utf-8")
    for cure in ("--engine ray", "torchrun --nproc_per_node=2 --no-python monai-ifim decompose"):
        assert cure in said
        assert cure in page  # whose commands tests/docs/test_many_cases_page.py runs
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", ["path", "hash"])
def test_an_input_without_an_image_and_files_that_are_not_read_are_in_the_summary(
    names: str, bundle: Path, scan: Path, tmp_path: Path
) -> None:
    (tmp_path / "ward").mkdir()
    for name in ("a.zip", "b.zip", "c.yamada"):
        (scan.parent / name).write_bytes(bytes(range(20)))
    words = ("--bundle", bundle, "-o", tmp_path / "out", "--rank", 1, "--save", "low", "--case-names", names)
    result = invoke("decompose", tmp_path / "ward", scan.parent, *words)
    assert result.exit_code == 3
    assert "1 done, 1 failed" in result.output
    suffix = ".yamada" if names == "path" else "other suffixes"
    said = f"Not read: 2 .zip, 1 {suffix}. If they are images: unpack archives, convert other formats to NIfTI."
    assert said in result.output
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["unread"] == {".zip": 2, suffix: 1}
    assert (record["cases"], is_unaltered((tmp_path / "out" / "run.json").read_bytes(), SEAL)) == (
        {"done": 1, "kept": 0, "failed": 1},
        True,
    )
    assert said in (tmp_path / "out" / "index.html").read_text()
    table = (tmp_path / "out" / "cases.csv").read_text()
    assert "no image and no DICOM series in it." in table
    assert ("ward" in table + result.output) == (names == "path")
    assert ("yamada" in table + result.output) == (names == "path")


def test_an_expected_error_is_one_line_on_standard_error_and_status_1(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("decompose", tmp_path / "gone [x].nii", "--bundle", bundle, "-o", tmp_path / "out")
    monkeypatch.setattr(sys, "argv", ["monai-ifim", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert lines == [f"error: {tmp_path / 'gone [x].nii'}: no such file or folder."]


def test_an_unknown_bundle_is_refused_naming_those_that_come_with_the_package(scan: Path, tmp_path: Path) -> None:
    result = invoke("decompose", scan, "--bundle", "no_such", "-o", tmp_path / "out")
    assert isinstance(result.exception, IFIMError)
    assert "lumpy_lesion_detection_3d, lumpy_segmentation_3d, mednist_classification" in str(result.exception)


@pytest.mark.parametrize(
    "words",
    [(), ("demo",), ("check",), ("decompose",), ("evaluate",), ("config",)],
    ids=lambda words: "".join(words) or "program",
)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom monai_ifim.cli.main import app\n"
        f"try:\n    app({[*words, '--help']!r})\n"
        f"except SystemExit as end:\n    print('status', end.code, sorted({HEAVY!r} & set(sys.modules)))"
    )
    result = run_python("-c", code)
    assert result.stdout.splitlines()[-1] == "status 0 []"
    assert "Usage" in result.stdout


def test_the_version_is_the_packages() -> None:
    from monai_ifim import __version__

    assert invoke("--version").output == f"monai-ifim {__version__}\n"


def test_check_ends_with_0_for_a_fit_bundle(bundle: Path) -> None:
    result = invoke("check", "--bundle", bundle)
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "fit for monai_ifim"


def test_check_ends_with_1_and_names_what_fails(tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    root = make_bundle(tmp_path / "one", classes=1)
    result = invoke("check", "--bundle", root)
    assert result.exit_code == 1
    assert "FAILED decomposition: --head auto cannot tell" in result.output
    assert result.output.splitlines()[-1] == "not fit for monai_ifim"
    assert invoke("check", "--bundle", root, "--head", "bernoulli").exit_code == 0


@pytest.mark.parametrize(("classes", "fit"), [(3, True), (1, False)])
def test_check_prints_json_and_only_json(classes: int, fit: bool, tmp_path: Path, make_bundle: Callable[..., Path]) -> None:
    result = invoke("check", "--bundle", make_bundle(tmp_path / "b", classes=classes), "--json")
    content = json.loads(result.stdout)
    assert (content["fit"], result.exit_code) == (fit, 0 if fit else 1)
    assert content["bundle"]["name"] == "tiny"
    assert {finding["name"]: finding["passed"] for finding in content["findings"]}["decomposition"] is fit


def test_check_takes_an_image_to_probe_with(bundle: Path, scan: Path) -> None:
    (bundle / "configs" / "metadata.json").unlink()
    assert isinstance(invoke("check", "--bundle", bundle).exception, IFIMError)
    assert invoke("check", "--bundle", bundle, "--image", scan).exit_code == 0
