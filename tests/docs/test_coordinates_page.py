"""Every block of docs/coordinates.md is run as it stands, and its command and names are those that exist."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.main import get_command

from monai_ifim.cli.main import app
from monai_ifim.coordinates.choice import NAMED

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "coordinates.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_blocks_run_in_order_and_differences_agree_with_derivatives(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.manual_seed(0)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"coordinates.md: block {number + 1}", "exec"), names)
    printed = capsys.readouterr().out
    assert "shift L: 1 mm costs" in printed
    assert "liver: 1 unit of the image costs" in printed
    ratio = names["judge"].nats_per_unit[0] / names["found"].nats_per_unit[0, :7]
    assert float(ratio.median()) == pytest.approx(1.0, rel=0.1)
    assert bool(((ratio > 0.5) & (ratio < 2)).all())  # of white noise in float32: small effects lose digits, as the page says


def test_the_command_and_the_families_exist() -> None:
    options = {option for each in get_command(app).commands["decompose"].params for option in each.opts}  # type: ignore[attr-defined]
    (command,) = re.findall(r"^monai-ifim decompose (.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"--[a-z-]+", command)) <= options
    for name in NAMED:
        assert f"`{name}`" in PAGE or name == "acquisition=any"


def test_a_tenth_of_a_nat_takes_an_even_answer_as_far_as_the_page_says() -> None:
    moved = torch.tensor(0.287)
    assert float(-0.5 * (4 * moved * (1 - moved)).log()) == pytest.approx(0.1, rel=0.01)
    assert "0.29 or 0.71" in " ".join(PAGE.split())
