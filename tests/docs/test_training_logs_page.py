"""Every block of docs/training_logs.md is run as it stands, and the logs are read back."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "training_logs.md").read_text(encoding="utf-8")
NUMBERS = {"ifim_trace", "ifim_leading_eigenvalue", "ifim_rank", "ifim_energy_kept"}


def _events(folder: Path) -> EventAccumulator:
    """The event files of a folder; pictures of all steps."""
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events


@pytest.mark.slow
def test_blocks_log_numbers_and_pictures_of_two_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    names: dict[str, Any] = {"__name__": "page"}
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert 2 * len(blocks) == PAGE.count("```")
    with torch.random.fork_rng(devices=[]):
        for block in blocks:
            exec(compile(block, "training_logs.md", "exec"), names)

    logged = set(re.findall(r"^\| `(ifim_\w+)` \|", PAGE, flags=re.MULTILINE))
    assert logged == NUMBERS | {"ifim_locality_radius"}
    events = _events(tmp_path / "logs")
    assert all([event.step for event in events.Scalars(name)] == [1, 2] for name in NUMBERS)
    (drawn,) = events.Tags()["images"]
    assert [event.step for event in events.Images(drawn)] == [1, 2]
    client = MlflowClient("sqlite:///mlflow.db")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert set(run.data.metrics) >= NUMBERS
    assert len(client.list_artifacts(run.info.run_id)) == 4

    (board,) = (tmp_path / "lightning_logs").rglob("version_0")
    events = _events(board)
    assert all(len(events.Scalars(name)) == 2 for name in NUMBERS)
    assert len(events.Images("ifim_overlay_1")) == 2
