"""Reads what a bundle's files say of its network's outputs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai_ifim.adapt.head_reading.components import Component, read_components
from monai_ifim.adapt.head_reading.conclusion import conclude
from monai_ifim.adapt.head_reading.losses import said_by_losses
from monai_ifim.adapt.head_reading.metadata import said_by_metadata
from monai_ifim.adapt.head_reading.network import said_by_definition, said_by_layers
from monai_ifim.adapt.head_reading.result import HeadReading
from monai_ifim.adapt.head_reading.transforms import said_by_transforms
from monai_ifim.io.model import METADATA, config_path, metadata_output, metadata_output_name, read_metadata

FURTHER_CONFIGS = ("evaluate", "validate", "test", "train")  # after the inference config, strongest first
SUFFIXES = (".json", ".yaml", ".yml")
ANSWER = "pred"  # MONAI's name of what a network answers


def read_head(root: Path, network: Any = None) -> HeadReading:
    """What the files of the bundle in `root` say of its network's outputs. Raises InputError for metadata that cannot be read.

    network: the network itself where it is loaded, for an activation that ends it. No entry of a config is instantiated or run;
    training and evaluation configs may be damaged or name what is not there.
    """
    metadata = read_metadata(root)
    name, output = metadata_output_name(metadata) or ANSWER, metadata_output(metadata)
    config = config_path(root)
    inference = [] if config is None else read_components(root, config.relative_to(root).as_posix())
    outputs = {ANSWER, name}
    statements = [*said_by_definition(inference), *said_by_transforms(inference, outputs)]
    for components in _further_components(root):
        statements += [*said_by_transforms(components, outputs), *said_by_losses(components)]
    statements += [*said_by_metadata(output, name, METADATA), *said_by_layers(network)]
    channels = output.get("num_channels")
    return conclude(statements, channels if isinstance(channels, int) else None)


def _further_components(root: Path) -> Iterator[list[Component]]:
    for stem in FURTHER_CONFIGS:
        for suffix in SUFFIXES:
            if (root / "configs" / f"{stem}{suffix}").is_file():
                yield read_components(root, f"configs/{stem}{suffix}")
