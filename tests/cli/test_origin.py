"""Before a bundle runs, its origin is said."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from monai_ifim.cli.main import app
from monai_ifim.io import identify_bundle


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path]) -> Path:
    """A bundle, named by a link, whose config prints a word when it runs."""
    root = make_bundle(tmp_path / "real")
    config = json.loads((root / "configs" / "inference.json").read_text())
    config["network_def"] = "$(print('my code runs'), " + config["network_def"].removeprefix("$") + ")[1]"
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    (tmp_path / "link").symlink_to(root)
    return tmp_path / "link"


def line_of(root: Path) -> str:
    weights = hashlib.sha256((root / "models" / "model.pt").read_bytes()).hexdigest()
    whole = identify_bundle(root).bundle_sha256
    said = f"version 9.8.7, weights models/model.pt of SHA-256 {weights}, whole bundle of SHA-256 {whole}"
    return f"bundle: {root.resolve()}, {said}; its config is code of its author's, which runs now"


@pytest.mark.parametrize("verb", ["check", "decompose"])
def test_folder_version_and_hash_are_one_line_before_any_of_its_code_runs(
    verb: str, bundle: Path, tmp_path: Path, write_scan: Callable[..., Path], oblique: Any
) -> None:
    scan = write_scan(tmp_path / "in" / "scan.nii.gz", (9, 7, 11), oblique)
    words = ["check"] if verb == "check" else ["decompose", str(scan), "-o", str(tmp_path / "out")]
    lines = CliRunner().invoke(app, [*words, "--bundle", str(bundle)]).output.splitlines()
    assert "my code runs" in lines
    assert lines.index(line_of(bundle)) < lines.index("my code runs")
    assert "/link" not in lines[lines.index(line_of(bundle))]


def test_json_has_standard_output_for_itself(bundle: Path) -> None:
    result = CliRunner().invoke(app, ["check", "--bundle", str(bundle), "--json"])
    assert json.loads(result.stdout)["fit"] is True
    assert line_of(bundle) in result.stderr.splitlines()


def test_a_bundle_without_version_and_weights_is_named_before_it_is_refused(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()
    (bundle / "configs" / "metadata.json").unlink()
    result = CliRunner().invoke(app, ["check", "--bundle", str(bundle)])
    assert result.exit_code == 1
    assert f"bundle: {bundle.resolve()}, no version stated, no weights, whole bundle of SHA-256 " in result.output
