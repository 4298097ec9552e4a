"""Which model made a result: bundle name, version and the hash of its weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_ifim.io.errors import InputError, innermost
from monai_ifim.io.source import sha256_of

WEIGHTS = "models/model.pt"
SCRIPT = "models/model.ts"
METADATA = "configs/metadata.json"
INFERENCE_CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")


@dataclass(frozen=True)
class ModelIdentity:
    """What the sidecar says of the model. class_names: in the order of the network's outputs, empty where unknown.

    config_sha256: of the inference config, whose preprocessing and network decide the result as much as the weights do.
    """

    name: str | None = None
    version: str | None = None
    weights_sha256: str | None = None
    class_names: tuple[str, ...] = field(default=())
    config_sha256: str | None = None


def identify_bundle(root: Path, class_names: tuple[str, ...] = ()) -> ModelIdentity:
    """Identity of the MONAI bundle in `root`; names of classes come from its metadata unless given."""
    weights, config = weights_path(root), config_path(root)
    metadata = read_metadata(root)
    return ModelIdentity(
        name=str(metadata.get("name") or root.resolve().name),
        version=metadata.get("version"),
        weights_sha256=None if weights is None else sha256_of(weights),
        class_names=class_names or metadata_class_names(metadata),
        config_sha256=None if config is None else sha256_of(config),
    )


def weights_path(root: Path) -> Path | None:
    """The file that a bundle's network is loaded from: its weights, or its TorchScript where there are none."""
    return next((root / name for name in (WEIGHTS, SCRIPT) if (root / name).is_file()), None)


def config_path(root: Path) -> Path | None:
    """The bundle's inference config; None where it has none."""
    return next((root / name for name in INFERENCE_CONFIGS if (root / name).is_file()), None)


def read_metadata(root: Path) -> dict[str, Any]:
    """The bundle's metadata.json, empty where there is none; raises InputError where it is no JSON mapping."""
    path = root / METADATA
    if not path.is_file():
        return {}
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"bundle {root.name}: metadata.json cannot be read ({innermost(error)}): correct it.") from error
    if not isinstance(content, dict):
        raise InputError(f"bundle {root.name}: metadata.json is {type(content).__name__}, not a mapping: correct it.")
    return content


def metadata_class_names(metadata: dict[str, Any]) -> tuple[str, ...]:
    """Class names from channel_def of the bundle's output, in order; empty where it has none or numbers none."""
    channels = metadata_output(metadata).get("channel_def")
    if not isinstance(channels, dict) or not all(str(key).isdecimal() for key in channels):
        return ()
    return tuple(str(channels[key]) for key in sorted(channels, key=int))


def metadata_inputs(metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What is stated of each input of the bundle's network, by name."""
    return _entries(metadata, "inputs")


def metadata_output(metadata: dict[str, Any]) -> dict[str, Any]:
    """What is stated of the bundle's output: the first that names its classes, or else the first; empty where none is."""
    outputs = _entries(metadata, "outputs")
    named = (value for value in outputs.values() if value.get("channel_def"))
    return next(named, None) or next(iter(outputs.values()), {})


def _entries(metadata: dict[str, Any], side: str) -> dict[str, dict[str, Any]]:
    stated = metadata.get("network_data_format")
    entries = stated.get(side) if isinstance(stated, dict) else None
    return {name: value for name, value in entries.items() if isinstance(value, dict)} if isinstance(entries, dict) else {}
