"""A MONAI classification bundle: network with its weights, preprocessing, class names, all from its own files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, SqueezeDimd, ToTensord
from torch import Tensor, nn

from monai_ifim.io import InputError, ModelIdentity, Source, identify_bundle
from monai_ifim.io.errors import innermost
from monai_ifim.io.model import METADATA, WEIGHTS, read_metadata
from monai_ifim.io.source import check_source

INFERENCE_CONFIGS = ("inference.json", "inference.yaml", "inference.yml")
STATE_KEYS = ("model", "network", "net", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Bundle:
    """What a decomposition needs of a bundle. channels, spatial_shape: of the network's input, None where not stated."""

    root: Path
    network: nn.Module
    preprocessing: Compose
    image_key: str
    identity: ModelIdentity
    channels: int | None
    spatial_shape: tuple[int | str, ...] | None

    @property
    def spatial_dims(self) -> int | None:
        """2 or 3, None where the metadata does not say."""
        return len(self.spatial_shape) if self.spatial_shape else None

    def preprocess(self, path: Path) -> MetaTensor:
        """The network's input [channel, *spatial] for an image file or series folder, by the bundle's own preprocessing.

        A single slice that its reader gave a third axis is taken as the plane that a 2D network wants.
        Raises InputError where the file cannot be read or has another number of channels than the network.
        """
        reading = self._reading_steps()
        try:
            data = self.preprocessing({self.image_key: str(path)}, end=reading)
        except Exception as error:
            raise InputError(f"{path.name}: cannot be read ({innermost(error)}).") from error
        image = data[self.image_key]
        if self.spatial_dims == 2 and image.ndim == 4 and image.shape[-1] == 1:
            data = SqueezeDimd(self.image_key, dim=-1, update_meta=False)(data)
        read = data[self.image_key]
        if self.spatial_dims is not None and read.ndim - 1 < self.spatial_dims:
            self._check(read, path)
        try:
            image = self.preprocessing(data, start=reading)[self.image_key]
        except Exception as error:
            self._check(read, path)
            raise InputError(f"{path.name}: the preprocessing of bundle {self.root.name} fails ({innermost(error)}).") from error
        if not isinstance(image, MetaTensor):
            raise InputError(
                f"the preprocessing of bundle {self.root.name} ends without a MetaTensor under "
                f"'{self.image_key}': keep track_meta on."
            )
        self._check(image, path)
        return image

    def example(self, path: Path | None) -> Tensor:
        """An input [channel, *spatial]: the image at `path`, or seeded random numbers of the shape the metadata states.

        Raises InputError where there is neither.
        """
        if path is not None:
            check_source(Source(path), self.channels)
            return self.preprocess(path)
        shape = [size for size in self.spatial_shape or () if isinstance(size, int)]
        if self.channels is None or not shape or len(shape) != self.spatial_dims:
            raise InputError(f"bundle {self.root.name}: its metadata states no input shape; give an image to probe with.")
        return torch.rand(self.channels, *shape, generator=torch.Generator().manual_seed(0))

    def _reading_steps(self) -> int:
        """How many transforms at the head of the preprocessing read the file."""
        count = 0
        for transform in self.preprocessing.transforms:
            if not isinstance(transform, (LoadImaged, EnsureChannelFirstd)):
                break
            count += 1
        return count

    def _check(self, image: MetaTensor, path: Path) -> None:
        if self.channels is not None and image.shape[0] != self.channels:
            raise InputError(
                f"{path.name}: {image.shape[0]} channel(s), and the network of bundle {self.root.name} takes {self.channels}: "
                "convert the image (a colour picture to grey, say)."
            )
        if self.spatial_dims is not None and image.ndim - 1 != self.spatial_dims:
            raise InputError(
                f"{path.name}: an image of {image.ndim - 1} dimensions {tuple(image.shape[1:])}, and the network of bundle "
                f"{self.root.name} takes {self.spatial_dims}."
            )


def load_bundle(root: Path, device: torch.device | str = "cpu") -> Bundle:
    """Read a bundle's `network_def`, `preprocessing` and models/model.pt; raises InputError naming what is missing.

    The bundle's config is MONAI's and may run code of its author's: load bundles you trust.
    """
    try:
        parser = _parse(root)
        metadata = read_metadata(root)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"bundle {root.name}: config or metadata.json cannot be read ({str(error).splitlines()[0]}).") from error
    with torch.random.fork_rng(devices=[]):  # random initial weights are drawn and then replaced
        network = _content(parser, "network_def", root)
    if not isinstance(network, nn.Module):
        raise InputError(f"bundle {root.name}: network_def is {type(network).__name__}, not a torch module.")
    _load_weights(network, root)
    preprocessing = _content(parser, "preprocessing", root)
    if not isinstance(preprocessing, Compose):
        raise InputError(f"bundle {root.name}: preprocessing is {type(preprocessing).__name__}, not a Compose.")
    inputs = metadata.get("network_data_format", {}).get("inputs", {})
    stated: Mapping[str, Any] = next(iter(inputs.values()), {}) if isinstance(inputs, Mapping) else {}
    shape = stated.get("spatial_shape")
    return Bundle(
        root=root,
        network=network.to(device).eval(),
        preprocessing=_traced(preprocessing),
        image_key=_image_key(preprocessing, root),
        identity=identify_bundle(root),
        channels=stated.get("num_channels"),
        spatial_shape=tuple(shape) if shape else None,
    )


def _parse(root: Path) -> ConfigParser:
    config = next((root / "configs" / name for name in INFERENCE_CONFIGS if (root / "configs" / name).is_file()), None)
    if config is None:
        raise InputError(f"bundle {root.name}: none of {', '.join(INFERENCE_CONFIGS)} in configs/.")
    parser = ConfigParser()
    parser.read_config(str(config))
    if (root / METADATA).is_file():
        parser.read_meta(str(root / METADATA))
    parser["bundle_root"] = str(root)
    return parser


def _content(parser: ConfigParser, name: str, root: Path) -> Any:
    if name not in parser:
        raise InputError(f"bundle {root.name}: its inference config has no '{name}'.")
    try:
        return parser.get_parsed_content(name)
    except Exception as error:
        raise InputError(f"bundle {root.name}: '{name}' cannot be built ({error}).") from error


def _load_weights(network: nn.Module, root: Path) -> None:
    path = root / WEIGHTS
    if not path.is_file():
        raise InputError(f"bundle {root.name}: no weights at {WEIGHTS}.")
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"bundle {root.name}: {WEIGHTS} holds no plain weights ({str(error).splitlines()[0]}).") from error
    for key in STATE_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    try:
        network.load_state_dict({name.removeprefix("module."): value for name, value in state.items()})
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"bundle {root.name}: {WEIGHTS} does not fit network_def ({reason}).") from error


def _traced(preprocessing: Compose) -> Compose:
    """With EnsureTyped for ToTensord: the same conversion, without dropping the trace that leads back to the input's grid."""
    steps = preprocessing.flatten().transforms
    if not any(isinstance(step, ToTensord) for step in steps):
        return preprocessing
    return Compose(
        [
            EnsureTyped(step.keys, dtype=step.converter.dtype, device=step.converter.device)
            if isinstance(step, ToTensord)
            else step
            for step in steps
        ]
    )


def _image_key(preprocessing: Compose, root: Path) -> str:
    for transform in preprocessing.flatten().transforms:
        if isinstance(transform, LoadImaged):
            return "image" if "image" in transform.keys else str(transform.keys[0])
    raise InputError(f"bundle {root.name}: its preprocessing has no LoadImaged, so it is not known which entry is the image.")
