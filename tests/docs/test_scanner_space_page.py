"""Every block and every command of docs/scanner_space.md is run as it stands, on the page's slice."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from typer.testing import CliRunner

from monai_ifim import decompose_scan
from monai_ifim.adapt.scanner.equivalents import Statistics
from monai_ifim.cli.main import app
from monai_ifim.evaluation.demonstration import demo_slice
from monai_ifim.io import read_sidecar
from monai_ifim.options import Space

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "scanner_space.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^monai-ifim (decompose .*)$", PAGE, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def page() -> tuple[dict[str, Any], str]:
    """The names that the blocks leave, one after the other in one session, and what they print."""
    names: dict[str, Any] = {}
    printed: list[str] = []
    names["print"] = lambda *words: printed.append(" ".join(map(str, words)))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in (DeprecationWarning, ResourceWarning):
            warnings.filterwarnings("ignore", category=kind)
        warnings.filterwarnings("ignore", message=".*nvImageCodec.*")
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"scanner_space.md: block {number + 1}", "exec"), names)
    return names, "\n".join(printed)


def test_high_and_low_are_the_scan_in_hounsfield_units(page: tuple[dict[str, Any], str]) -> None:
    names, printed = page
    scan = names["scan"].as_tensor().float()
    assert float(scan.min()) < -800
    assert float(scan.max()) > 700
    torch.testing.assert_close(names["d"].high[0] + names["d"].low[0], scan, rtol=1e-6, atol=0)
    assert "nats per HU^2" in printed


def test_the_true_derivative_is_blind_to_brightness_and_contrast_and_the_frozen_one_is_not(
    page: tuple[dict[str, Any], str],
) -> None:
    names, _ = page
    shares = [float(names[name].high.norm() / names[name].image.norm()) for name in ("d", "frozen")]
    assert shares[0] < 1e-6
    assert shares[1] > 0.1
    leading = names["d"].eigenvectors[0, 0].flatten()
    assert abs(float(leading.sum())) < 1e-3 * float(leading.abs().sum())


def test_the_resolution_is_the_network_s_voxel(page: tuple[dict[str, Any], str]) -> None:
    names, _ = page
    widths = names["smooth"].record["preprocessing"]["resolution_mm"]
    spacing = names["scan"].pixdim.tolist()
    assert widths[:2] == pytest.approx([2 * step for step in spacing[:2]])
    rough, smooth = (names[name].eigenimages[0, 0, 0] for name in ("d", "smooth"))
    roughness = [float(image.diff(dim=0).square().sum() / image.square().sum()) for image in (rough, smooth)]
    assert roughness[1] < 0.5 * roughness[0]


def test_noise_is_counted_in_its_standard_deviations(page: tuple[dict[str, Any], str]) -> None:
    names, printed = page
    torch.testing.assert_close(names["noisy"].eigenvalues, 400 * names["d"].eigenvalues, rtol=1e-4, atol=0)
    stated = re.search(r"would take about (\d+)", PAGE)
    assert stated is not None
    assert names["sigmas"] == pytest.approx(int(stated[1]), abs=1)
    assert "nats per (standard deviation of the noise)^2" in printed


def test_the_changed_file_of_the_page_agrees(page: tuple[dict[str, Any], str]) -> None:
    names, _ = page
    assert names["measured"] == pytest.approx(names["predicted"], rel=0.1)


@pytest.mark.usefixtures("blank_figure")
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path) -> None:
    words = command.replace("scan.dcm", str(demo_slice())).split()
    words[words.index("--output") + 1] = str(tmp_path)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    sidecar = read_sidecar(tmp_path / "CT_small" / "CT_small_ifim.json")
    assert sidecar["space"]["name"] == "scanner"
    expected = "standard deviation of the noise" if "--noise" in command else "Hounsfield units"
    assert expected in sidecar["units"]["eigenvalues"]


def test_every_space_statistics_and_option_that_there_is_is_on_the_page() -> None:
    assert len(COMMANDS) == 4
    for name in (*get_args(Space), *get_args(Statistics)):
        assert f"`{name}`" in PAGE
    for name in ("statistics", "resolution"):
        assert name in inspect.signature(decompose_scan).parameters
        assert f"`--{name}" in PAGE


def test_figures_and_pages_that_it_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (DOCS / target).exists(), target
