"""Every block and every command of docs/segmentation.md is run as it stands, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from monai_ifim.cli.main import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "segmentation.md").read_text(encoding="utf-8")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("blank_figure")]  # four runs of the command line
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The names that the blocks leave, one after the other in one session, and what they print."""
    names: dict[str, Any] = {}
    printed: list[str] = []
    names["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(tmp_path_factory.mktemp("page"))
        for number, (language, code) in enumerate(BLOCKS):
            if language == "python":
                exec(compile(code, f"segmentation.md: block {number + 1}", "exec"), names)
                continue
            for command in code.strip().splitlines():
                result = CliRunner().invoke(app, shlex.split(command)[1:])
                assert result.exit_code == 0, (command, result.output, result.exception)
    return names, "\n".join(printed)


def test_the_network_expects_about_the_volume_that_was_planted(page: tuple[dict[str, Any], str]) -> None:
    names, _ = page
    background, lesion = names["volumes"]["labels"]
    assert (background["name"], lesion["name"], names["volumes"]["unit"]) == ("background", "lesion", "ml")
    assert lesion["expected"] == pytest.approx(names["truth"].volume, rel=0.25)
    assert lesion["expected"] == pytest.approx(names["lesion_ml"](names["image"]), rel=1e-4)
    assert background["expected"] + lesion["expected"] == pytest.approx(32**3 * 0.008)


def test_small_steps_move_the_volume_as_predicted(page: tuple[dict[str, Any], str]) -> None:
    names, printed = page
    steps = re.findall(r"step ([+-][\d.]+): predicted ([+-][\d.]+) ml, measured ([+-][\d.]+) ml", printed)
    assert len(steps) == 4
    for step, predicted, measured in steps:
        if abs(float(step)) < 0.5:
            assert float(measured) == pytest.approx(float(predicted), rel=0.1, abs=2e-4)
    assert len(names["sidecar"]["eigenvalues"]) == names["sidecar"]["jacobian_products"] == 1


def test_the_volume_depends_on_what_is_near_the_lesion(page: tuple[dict[str, Any], str]) -> None:
    share = re.search(r"(\d+)% of the trace within (\d+) voxels", page[1])
    assert share is not None
    assert int(share[1]) > 80
    assert int(share[2]) < 10


def test_the_background_hardly_counts(page: tuple[dict[str, Any], str]) -> None:
    names, printed = page
    assert "['lesion']" in printed
    assert names["alone"]["eigenvalues"][0] == pytest.approx(names["sidecar"]["eigenvalues"][0], rel=0.01)


def test_a_part_of_the_voxels_has_a_part_of_the_trace(page: tuple[dict[str, Any], str]) -> None:
    traces = dict(re.findall(r"([\w-]+): leading eigenvalue [\d.e+-]+, trace ([\d.e+-]+)", page[1]))
    assert float(traces["voxelwise-lesion"]) < float(traces["voxelwise"])
