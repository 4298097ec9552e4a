"""Every block of docs/engine.md is run as it stands."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_blocks_run_in_order_without_a_warning_and_do_what_the_page_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    seen = []
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"engine.md: block {number + 1}", "exec"), names)
            seen.append(names.get("d"))
    assert len(BLOCKS) == 11
    methods = [d.record["method"] for d in seen if d is not None]  # type: ignore[attr-defined]
    assert methods[:3] == ["matrix_free", "exact", "matrix_free"]
    printed = capsys.readouterr().out
    assert "{'taps': 1, 'turned': 2}" in printed
    assert "nats per (standard deviation of the noise)^2" in printed
    assert "columns of similar weight are asked for" in printed
    assert "\nheads.diagnosis\n" in printed


def test_every_method_head_and_precision_that_there_is_is_on_the_page() -> None:
    from typing import get_args

    from monai_ifim.options import Method, Precision

    for name in (*get_args(Method), *get_args(Precision), "voxelwise", "volumes", "volumes_bernoulli"):
        assert f'"{name}"' in PAGE
