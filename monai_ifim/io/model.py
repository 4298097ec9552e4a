"""Which model made a result: bundle name, version and the hash of its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ifim.io.source import sha256_of

WEIGHTS = "models/model.pt"
METADATA = "configs/metadata.json"


@dataclass(frozen=True)
class ModelIdentity:
    """What the sidecar says of the model. class_names: in the order of the network's outputs, empty where unknown."""

    name: str | None = None
    version: str | None = None
    weights_sha256: str | None = None
    class_names: tuple[str, ...] = field(default=())


def identify_bundle(root: Path, class_names: tuple[str, ...] = ()) -> ModelIdentity:
    """Identity of the MONAI bundle in `root`; names of classes come from its metadata unless given."""
    weights = root / WEIGHTS
    metadata = read_metadata(root)
    return ModelIdentity(
        name=str(metadata.get("name") or root.resolve().name),
        version=metadata.get("version"),
        weights_sha256=sha256_of(weights) if weights.is_file() else None,
        class_names=class_names or metadata_class_names(metadata),
    )


def read_metadata(root: Path) -> dict[str, Any]:
    """The bundle's metadata.json, empty where there is none."""
    path = root / METADATA
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def metadata_class_names(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Class names from channel_def of the bundle's output, in order; empty where it has none."""
    outputs = metadata.get("network_data_format", {}).get("outputs", {})
    channels: dict[str, Any] = next((value.get("channel_def") for value in outputs.values() if value.get("channel_def")), {})
    return tuple(str(channels[key]) for key in sorted(channels, key=int))
