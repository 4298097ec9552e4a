"""--expect-sha256: another bundle than the expected one is refused before any of its code runs."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from monai_ifim.cli.main import app
from monai_ifim.io import identify_bundle
from monai_ifim.io.case_files import AUDIT_LOG

RUNS = "my code runs"
VERBS = ("check", "decompose", "evaluate", "pacs")


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    """A bundle whose config prints a word when it runs."""
    root = make_bundle(tmp_path / "bundle")
    config = json.loads((root / "configs" / "inference.json").read_text())
    config["network_def"] = f"$(print('{RUNS}'), " + config["network_def"].removeprefix("$") + ")[1]"
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    return root


@pytest.fixture
def invoke(bundle: Path, tmp_path: Path, write_scan: Callable[..., Path], oblique: Any) -> Callable[[str, str], Result]:
    """A verb with the bundle and an expected hash."""
    scan = write_scan(tmp_path / "in" / "scan.nii.gz", (9, 7, 11), oblique)
    datalist = tmp_path / "in" / "labels.json"
    datalist.write_text(json.dumps({"testing": [{"image": "scan.nii.gz", "label": 0}]}))
    out = ["-o", str(tmp_path / "out")]
    words = {
        "check": [],
        "decompose": [str(scan), *out],
        "evaluate": ["bundle", "--datalist", str(datalist), *out],
        "pacs": ["--url", "http://127.0.0.1:9/dicom-web", "--study", "1.2.3", *out],  # nobody listens there
    }

    def run(verb: str, expected: str) -> Result:
        return CliRunner().invoke(app, [verb, *words[verb], "--bundle", str(bundle), "--expect-sha256", expected])

    return run


def hash_of(bundle: Path) -> str:
    return hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()


@pytest.mark.parametrize("verb", VERBS)
def test_another_bundle_is_refused_before_its_code_runs(verb: str, bundle: Path, invoke: Any, tmp_path: Path) -> None:
    found = hash_of(bundle)
    other = ("0" if found[0] != "0" else "1") + found[1:]
    result = invoke(verb, other)
    assert result.exit_code == 1
    assert f"{bundle}: not the bundle of SHA-256 {other} (its weights have {found}, the whole bundle has " in str(
        result.exception
    )
    assert RUNS not in result.output
    assert [path.name for path in (tmp_path / "out").glob("*")] == ([AUDIT_LOG] if verb == "pacs" else [])


@pytest.mark.parametrize("verb", VERBS)
def test_the_expected_bundle_runs(verb: str, bundle: Path, invoke: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_ifim.run.pacs.choose_series", lambda *_: sys.exit(9))  # the server need not be there
    whole = identify_bundle(bundle).bundle_sha256
    assert whole is not None
    output = invoke(verb, whole).output
    assert RUNS in output
    assert f"whole bundle of SHA-256 {whole} (as expected); its config" in output


def test_same_weights_with_other_code_are_another_bundle(bundle: Path, invoke: Any) -> None:
    whole = identify_bundle(bundle).bundle_sha256
    assert whole is not None
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "step.py").write_text("print('other')\n", encoding="utf-8")
    assert "not the bundle of SHA-256" in str(invoke("check", whole).exception)
    kept = invoke("check", hash_of(bundle))
    assert kept.exit_code == 0
    assert "(the weights as expected; the hash of the whole bundle would cover its code too)" in kept.output


def test_hash_may_be_written_in_capitals_and_with_its_kind(bundle: Path, invoke: Any) -> None:
    assert invoke("check", f" SHA256:{hash_of(bundle).upper()} ").exit_code == 0


@pytest.mark.parametrize("expected", ["", "aedbad3f", "g" * 64, "md5:" + "0" * 64, "0" * 65])
def test_what_is_no_hash_is_refused(expected: str, invoke: Any) -> None:
    result = invoke("check", expected)
    assert result.exit_code == 1
    assert "64 hexadecimal digits" in str(result.exception)
    assert RUNS not in result.output


def test_experiment_without_a_bundle_expects_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "quick", "-o", str(tmp_path / "out"), "--expect-sha256", "0" * 64])
    assert result.exit_code == 2
    assert "--expect-sha256 needs --bundle" in result.output
