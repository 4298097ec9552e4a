"""docs/command_line.md: its table names the files that a case gets, and its commands have only options that exist."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from monai_ifim.cli.main import app
from monai_ifim.evaluation.demonstration import demo_slice
from monai_ifim.io.installation import configs_folder

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
OF_SEGMENTATIONS = {"CASE_ifim_sensitivity_error.nii.gz", "CASE_ifim_labels.nii.gz", "CASE_labels.ctbl"}  # a classifier has none


def _named_files() -> set[str]:
    rows = re.findall(r"^\| (`CASE.*?) \|", PAGE, flags=re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(CASE[^`]+)`", row)}


def _first_of_its_kind(name: str) -> str:
    """The table names one eigenvector and one Parametric Map; `...` stands for the others."""
    return "CASE_ifim_high.dcm" if name.endswith(".dcm") else re.sub(r"eigenvector-\d\d", "eigenvector-01", name)


def test_table_names_the_files_of_a_case(tmp_path: Path) -> None:
    words = [str(demo_slice()), "--bundle", "mednist_classification", "--output", str(tmp_path), "--dicom-pm", "--mrb"]
    result = CliRunner().invoke(app, ["decompose", *words])
    assert result.exit_code == 0, result.output
    written = {path.name.replace("CT_small", "CASE", 1) for path in (tmp_path / "CT_small").iterdir()}
    assert {_first_of_its_kind(name) for name in written} == _named_files() - OF_SEGMENTATIONS
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == set(
        re.findall(r"`(cases\.\w+|run\.json|index\.html)`", PAGE)
    )


def test_commands_and_overlays_exist() -> None:
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    commands = re.findall(r"monai-ifim (\w+)([^`\n)]*)", PAGE)
    assert {"check", "decompose", "config"} <= {verb for verb, _ in commands}
    for verb, words in commands:
        options = {option for parameter in verbs[verb].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= options | {"--help"}
    for overlay in re.findall(r"monai-ifim config (\w+)", PAGE):
        assert (configs_folder() / f"{overlay}.yaml").is_file()
