"""Bad inputs: each row of the table ends with its exit status and a one-line message with the cure, and affects no other case."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from bad_inputs import bundle_rows, dicom_rows, nifti_rows, place_rows
from bad_inputs.attempt import Attempt, Row
from monai_ifim.cli.main import main
from monai_ifim.io.maps import MapContent

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "bad_inputs.md"
TABLE = [*nifti_rows.ROWS, *dicom_rows.ROWS, *bundle_rows.ROWS, *place_rows.ROWS]
STATUS = {"done": 0, "refused": 1, "usage": 2, "failed": 3, "all failed": 3}
PASSING = ("seconds", "peak_memory_bytes", "verification", "sidecar_sha256")  # of a sidecar: another in every run
Files = dict[str, Any]
pytestmark = pytest.mark.usefixtures("blank_figure")


@dataclass(frozen=True)
class Ground:
    """Shared by all attempts on networks of one kind: a bundle, two good images, and the files of a run of these alone."""

    bundle: Path
    good: tuple[Path, Path]
    output: Path


def run(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit status of the command line in this process."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["monai-ifim", *attempt.words()])
        if attempt.fault is not None:
            attempt.fault(patch)
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def content(output: Path, cases: tuple[str, ...] | None = None) -> Files:
    """Contents of the files in OUT, of all or some cases; sidecars without times and memory."""
    files: Files = {}
    for file in sorted(output.rglob("*")):
        name = file.relative_to(output)
        if not file.is_file() or (cases is not None and name.parts[0] not in cases):
            continue
        files[str(name)] = file.read_bytes()
        if name.name.endswith("_ifim.json"):
            sidecar = json.loads(file.read_text())
            files[str(name)] = {key: value for key, value in sidecar.items() if key not in PASSING}
    return files


@pytest.fixture(scope="module")
def grounds(
    tmp_path_factory: pytest.TempPathFactory, make_bundle: Callable[..., Path], write_scan: Callable[..., Path], oblique: Any
) -> dict[int, Ground]:
    folder = tmp_path_factory.mktemp("grounds")
    made = {}
    for dims in (2, 3):
        place = folder / str(dims)
        place.mkdir()
        if dims == 3:
            good = tuple(
                write_scan(place / f"{name}.nii.gz", (9, 7, 11), oblique, shift) for name, shift in (("a", 0), ("z", 0.5))
            )
        else:
            good = (place / "a.png", place / "z.png")
            for seed, path in enumerate(good):
                Image.fromarray(np.random.default_rng(seed).integers(0, 255, (17, 15)).astype(np.uint8)).save(path)
        bundle = make_bundle(place / "bundle", dims=dims)
        with pytest.MonkeyPatch.context() as patch:
            assert run(Attempt(place, good, bundle, place / "out"), patch) == 0
        made[dims] = Ground(bundle, good, place / "out")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.slug)
def test_bad_input_is_one_line_and_harms_nothing_else(
    row: Row, grounds: dict[int, Ground], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ground = grounds[row.dims]
    attempt = row.make(Attempt(tmp_path, ground.good, ground.bundle, tmp_path / "out"))
    begins = row.outcome not in ("refused", "usage")
    if not begins and attempt.output == tmp_path / "out":
        shutil.copytree(ground.output, attempt.output)  # what an earlier run left
    status = run(attempt, monkeypatch)
    out, err = capfd.readouterr()
    assert status == STATUS[row.outcome], out + err
    assert "Traceback" not in out + err
    reasons = [line.removeprefix("error: ") for line in err.splitlines() if line.startswith("error: ")]
    if row.outcome == "usage":
        assert row.sees in err
    elif row.outcome == "refused":
        assert len(reasons) == 1
        assert matches(row, reasons[0])
    else:
        assert reasons == []
        check_rows(row, attempt, ground, out)
    if tmp_path in attempt.output.parents and os.path.isdir(attempt.output):
        check_whole(attempt.output)
        assert begins or content(attempt.output, ("a", "z")) == content(ground.output, ("a", "z"))
    assert not (tmp_path / "executed").exists()


def matches(row: Row, line: str) -> bool:
    """True if the line matches the table's, with any text for its dots."""
    pattern = ".*".join(re.escape(part) for part in row.sees.split("..."))
    assert re.fullmatch(pattern, line), f"{line!r} is not {row.sees!r}"
    return True


def check_rows(row: Row, attempt: Attempt, ground: Ground, out: str) -> None:
    """cases.csv and the screen agree; the good cases have the files of a run without the bad one."""
    with (attempt.output / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    failed = {found["case"]: found["reason"] for found in rows if found["status"] == "failed"}
    said = [line.removeprefix("FAILED").strip() for line in out.splitlines() if line.startswith("FAILED")]
    assert said == [f"{case}: {reason}" for case, reason in failed.items()]
    assert all(matches(row, reason) for reason in failed.values())
    if row.outcome == "all failed":
        assert list(failed) == ["a", "z"]
        return
    assert [found["case"] for found in rows][::2] == ["a", "z"]
    assert content(attempt.output, ("a", "z")) == content(ground.output, ("a", "z"))
    between = rows[1]["case"]
    assert list(failed) == ([] if row.outcome == "done" else [between])
    if row.outcome == "done":
        check_values(attempt, between)


def check_values(attempt: Attempt, case: str) -> None:
    """The written scan has the expected values; the case's name is valid on any file system."""
    sidecar = json.loads((attempt.output / case / f"{case}_ifim.json").read_text())
    written = {MapContent.of(file).label: file["file"] for file in sidecar["files"]}
    if (attempt.folder / "expected.npy").exists():
        expected = np.load(attempt.folder / "expected.npy")
        found = nib.load(attempt.output / case / written["source"]).get_fdata()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)
    assert len(case) <= 140
    assert re.fullmatch(r"[\w.-]+", case, flags=re.ASCII)


def check_whole(output: Path) -> None:
    """Each folder has a sidecar and all files that it names; no temporary file is left."""
    assert not list(output.rglob(".partial-*"))
    for folder in [place for place in output.glob("*") if place.is_dir()]:
        sidecar = json.loads((folder / f"{folder.name}_ifim.json").read_text())
        assert {file["file"] for file in sidecar["files"]} <= {file.name for file in folder.iterdir()}


def test_page_and_table_have_the_same_rows() -> None:
    cells = [
        tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith(("| what is wrong", "| ---"))
    ]
    assert [(what, sees.strip("`")) for what, sees, _ in cells] == [(row.what, row.sees) for row in TABLE]
    assert all(cure for _, _, cure in cells)
    assert len(TABLE) >= 45
    assert len({row.slug for row in TABLE}) == len(TABLE)


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("options", [pytest.param([], marks=pytest.mark.soak), ["--debug"]], ids=["plain", "debug"])
def test_traceback_of_a_failed_case_is_for_those_who_ask(options: list[str], grounds: dict[int, Ground], tmp_path: Path) -> None:
    (tmp_path / "bad.nii").write_bytes(b"")
    attempt = Attempt(tmp_path, (grounds[3].good[0],), grounds[3].bundle, tmp_path / "out").between(tmp_path / "bad.nii")
    result = python("-m", "monai_ifim.cli.main", *options, *attempt.words())
    assert result.returncode == 3
    told = ["Traceback" in result.stderr, "case bad: where the error arose" in result.stderr]
    assert told == [bool(options)] * 2
    assert "FAILED  bad: bad.nii: the file is empty." in result.stdout


@pytest.mark.soak
def test_mistake_of_the_program_is_one_line_and_its_place_where_asked() -> None:
    spoil = (
        "import sys\n"
        "import monai_ifim.io.installation as place\n"
        "def mistake(name): raise ZeroDivisionError('division by zero')\n"
        "place.resolve_bundle = mistake\n"
        "sys.argv = ['monai-ifim', '--debug', 'check', '--bundle', 'any']\n"
        "from monai_ifim.cli.main import main\n"
        "main()"
    )
    result = python("-c", spoil)
    lines = result.stderr.splitlines()
    assert result.returncode == 1
    assert "in mistake" in result.stderr
    assert lines[-1] == "error: ZeroDivisionError: division by zero (this is a bug; --debug shows where)"
