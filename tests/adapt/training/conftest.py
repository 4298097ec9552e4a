"""Logs of trainings."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_mlflow_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """No store is named by the environment: Lightning's logger names its own there, which MONAI's handler then prefers."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
