"""Identity of the model of a result: bundle name, version and hashes of its weights and config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from monai_ifim.io.bundle_files import OUTSIDE, hash_bundle_files
from monai_ifim.io.digests import digest_of_files, sha256_known
from monai_ifim.io.errors import InputError, innermost
from monai_ifim.io.intended_use import IntendedUse

SAFE_WEIGHTS = "models/model.safetensors"
WEIGHTS = "models/model.pt"
SCRIPT = "models/model.ts"
METADATA = "configs/metadata.json"
INFERENCE_CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")


@dataclass(frozen=True)
class ModelIdentity:
    """Identity of a model for the sidecar. class_names: in the order of the network's outputs, empty if unknown.

    config_sha256: of the inference config, whose preprocessing and network definition influence the result too. files: all files
    that decide a result, with their SHA-256 (`io.bundle_files`). intended_use: what the metadata say that it was made for.
    """

    name: str | None = None
    version: str | None = None
    weights_sha256: str | None = None
    class_names: tuple[str, ...] = field(default=())
    config_sha256: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    intended_use: IntendedUse = field(default_factory=IntendedUse)

    @property
    def bundle_sha256(self) -> str | None:
        """One SHA-256 of all that decides a result: of the lines `HASH  NAME` of `files`; None if the bundle is unknown."""
        return digest_of_files(self.files) if self.files else None

    @property
    def own_files(self) -> dict[str, str]:
        """`files` without those that lie outside of the bundle."""
        return {name: sha256 for name, sha256 in self.files.items() if not name.startswith(OUTSIDE)}

    def described(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self) | {"class_names": list(self.class_names), "bundle_sha256": self.bundle_sha256}


def output_names(class_names: Sequence[str], outputs: int) -> tuple[str, ...]:
    """The names of a network's outputs: those of its classes, or "output 0" and so on where they are of another number."""
    return tuple(class_names) if len(class_names) == outputs else tuple(f"output {i}" for i in range(outputs))


def identify_bundle(root: Path, class_names: tuple[str, ...] = ()) -> ModelIdentity:
    """Identity of the MONAI bundle in `root`; class names are taken from its metadata unless given.

    A file is read once in a process, however often this is called, unless it has changed. Raises InputError, OSError.
    """
    weights, config = weights_path(root), config_path(root)
    metadata = read_metadata(root)
    return ModelIdentity(
        name=str(metadata.get("name") or root.resolve().name),
        version=metadata.get("version"),
        weights_sha256=None if weights is None else sha256_known(weights),
        class_names=class_names or metadata_class_names(metadata),
        config_sha256=None if config is None else sha256_known(config),
        files=hash_bundle_files(root, config),
        intended_use=IntendedUse.of(metadata, _image_input(metadata)),
    )


def weights_path(root: Path) -> Path | None:
    """The file that a bundle's network is loaded from: its safetensors, which hold nothing but tensors, or else its other
    weights, or else its TorchScript."""
    return next((root / name for name in (SAFE_WEIGHTS, WEIGHTS, SCRIPT) if (root / name).is_file()), None)


def config_path(root: Path) -> Path | None:
    """Path of the bundle's inference config; None if it has none."""
    return next((root / name for name in INFERENCE_CONFIGS if (root / name).is_file()), None)


def read_metadata(root: Path) -> dict[str, Any]:
    """The bundle's metadata.json, empty if it has none; raises InputError if that is not a JSON mapping."""
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
    """Class names from channel_def of the bundle's output, in order; empty if there are none, or their keys are not numbers."""
    channels = metadata_output(metadata).get("channel_def")
    if not isinstance(channels, dict) or not all(str(key).isdecimal() for key in channels):
        return ()
    return tuple(str(channels[key]) for key in sorted(channels, key=int))


def metadata_inputs(metadata: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metadata of each input of the bundle's network, by name."""
    return _entries(metadata, "inputs")


def _image_input(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the input called "image", or else of the first."""
    inputs = metadata_inputs(metadata)
    return inputs.get("image", next(iter(inputs.values()), {}))


def metadata_output(metadata: dict[str, Any]) -> dict[str, Any]:
    """The metadata of the bundle's output (`metadata_output_name`); empty if there is none."""
    name = metadata_output_name(metadata)
    return {} if name is None else _entries(metadata, "outputs")[name]


def metadata_output_name(metadata: dict[str, Any]) -> str | None:
    """Name of the bundle's output: of the first that names its classes, or else of the first; None if there is none."""
    outputs = _entries(metadata, "outputs")
    named = (name for name, value in outputs.items() if value.get("channel_def"))
    return next(named, next(iter(outputs), None))


def _entries(metadata: dict[str, Any], side: str) -> dict[str, dict[str, Any]]:
    stated = metadata.get("network_data_format")
    entries = stated.get(side) if isinstance(stated, dict) else None
    return {name: value for name, value in entries.items() if isinstance(value, dict)} if isinstance(entries, dict) else {}
