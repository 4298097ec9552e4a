"""Files of bundles without weights: what is read of them is text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Files = Callable[..., Path]


@pytest.fixture
def bundle_files(tmp_path: Path) -> Files:
    """Write configs (by their names, such as "inference.json" or "train.yaml") and the metadata of one output."""

    def write(configs: dict[str, dict[str, Any]], output: dict[str, Any] | None = None, name: str = "pred") -> Path:
        folder = tmp_path / "bundle" / "configs"
        folder.mkdir(parents=True)
        for file, content in configs.items():
            text = json.dumps(content) if file.endswith(".json") else yaml.safe_dump(content)
            (folder / file).write_text(text, encoding="utf-8")
        outputs = {} if output is None else {name: output}
        metadata = {"network_data_format": {"inputs": {"image": {"num_channels": 1}}, "outputs": outputs}}
        (folder / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
        return tmp_path / "bundle"

    return write
