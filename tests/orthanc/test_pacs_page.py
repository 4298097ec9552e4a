"""Every command of docs/pacs.md is run against Orthanc, and its error is the one that the page shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from fake_pacs import PASSWORD, USER
from monai_ifim.cli.main import app
from synthetic_series import ORIENTATIONS, Series

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "pacs.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```bash\nmonai-ifim (.+)\n```$", PAGE, flags=re.MULTILINE)
[ERROR] = re.findall(r"^```\npacs\.example\.org: (.*) It holds", PAGE, flags=re.MULTILINE)
pytestmark = pytest.mark.usefixtures("blank_figure")


def test_commands_do_what_the_page_says(
    orthanc: Any, make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = generate_uid()
    for number, (name, count) in enumerate({"axial": 5, "oblique": 4}.items(), start=1):
        series = Series(ORIENTATIONS[name], slices=count)
        series.study = study
        for image in series.slices():
            image.SeriesNumber = number
            orthanc.take(image)
    make_bundle(tmp_path / "my_bundle")
    monkeypatch.chdir(tmp_path)
    for variable, value in {"IFIM_PACS_USER": USER, "IFIM_PACS_PASSWORD": PASSWORD, "NETRC": "none"}.items():
        monkeypatch.setenv(variable, value)

    def run(command: str) -> Any:
        words = command.replace("https://pacs.example.org/dicom-web", orthanc.dicom_web).replace("1.2.840.1", study)
        return CliRunner().invoke(app, [*shlex.split(words), "--ca-bundle", str(orthanc.certificate), "--head", "categorical"])

    one, every, look = COMMANDS
    assert f": {ERROR} It holds CT, series " in str(run(one).exception)
    assert "2 done, 0 failed" in run(look).output
    assert len(orthanc.instances(StudyInstanceUID=study)) == 9
    result = run(every)
    assert result.exit_code == 0, result.output
    stored = len(orthanc.instances(StudyInstanceUID=study)) - 9
    assert stored > 0
    assert f"maps: {stored} stored in the study, 0 there already, 0 failed" in result.output
    assert f"maps: 0 stored in the study, {stored} there already, 0 failed" in run(every).output
