"""The script for a GPU runs on a CPU at tiny sizes, and its other ways to make the passes give the same gradients."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.approximate import SectionSkipped
from benchmarks.gpu.__main__ import SECTIONS, main
from benchmarks.gpu.waits import waits
from benchmarks.gpu.ways import batched, graphed, one_by_one
from benchmarks.timing import Setting

CPU = torch.device("cpu")


def _network() -> nn.Module:
    torch.manual_seed(4)
    layers = (nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(3 * 5 * 3, 4))
    return nn.Sequential(*layers).double().requires_grad_(False).eval()


def _image() -> Tensor:
    return torch.rand(1, 2, 7, 5, generator=torch.Generator().manual_seed(5)).double()


def test_without_a_gpu_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no CUDA device: run this on a machine with one, or try --device cpu --quick"):
        main([])
    with pytest.raises(SystemExit, match="cpu is no GPU: leave --device out, or add --quick"):
        main(["--device", "cpu"])


@pytest.mark.slow
def test_it_runs_on_a_cpu_at_tiny_sizes(tmp_path: Path) -> None:
    own = ["exactness", "recurrent", "throughput", "ways"]
    main(["--device", "cpu", "--quick", "--output", str(tmp_path), "--only", *own])
    found = json.loads((tmp_path / "gpu-cpu-quick.json").read_text(encoding="utf-8"))
    assert list(found["sections"]) == own
    assert all(section["stamp"]["command"] for section in found["sections"].values())
    rows = {name: section["rows"] for name, section in found["sections"].items()}
    barred = [row for name in own for row in rows[name] if row["bar"]]
    assert len(barred) == 3 * 3
    assert all(row["value"] < row["bar"]["limit"] for row in barred)
    (graph,) = [row for row in rows["ways"] if row["what"].startswith("CUDA graph")]
    assert graph["value"] is None
    assert graph["details"] == "a CUDA graph needs a CUDA device, and this is cpu"
    assert "| **recurrent** |" in (tmp_path / "gpu-cpu-quick.md").read_text(encoding="utf-8")


def test_a_section_that_begins_too_late_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.__main__.LAST_START", -1.0)
    with pytest.raises(SystemExit, match=r"nothing was recorded for: waits .no time left: --only waits."):
        main(["--device", "cpu", "--quick", "--output", str(tmp_path), "--only", "waits"])


def test_waits_are_counted_on_a_gpu_only() -> None:
    with pytest.raises(SectionSkipped, match="CUDA devices only"):
        waits(Setting(1, CPU, quick=True))
    assert SECTIONS["waits"] is waits


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_way_gives_the_gradients_of_the_first_logits(layout: torch.memory_format) -> None:
    network, image = _network().to(memory_format=layout), _image().to(memory_format=layout)
    truth = torch.func.jacrev(lambda x: network(x)[0])(image)[:3]  # type: ignore[no-untyped-call]
    torch.testing.assert_close(one_by_one(network, image, 4), truth)
    torch.testing.assert_close(batched(network, image, 4), truth)


def test_a_graph_needs_a_gpu() -> None:
    with pytest.raises(RuntimeError, match="a CUDA graph needs a CUDA device, and this is cpu"):
        graphed(_network(), _image(), 4)
