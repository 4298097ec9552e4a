"""A MONAI classification bundle: network with its weights, preprocessing, class names, all from its own files."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ComponentLocator, ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, SqueezeDim
from torch import Tensor, nn

from monai_ifim.adapt.head_reading.reading import read_head
from monai_ifim.adapt.head_reading.result import HeadReading
from monai_ifim.adapt.inferred_network import called_by, dividing_inferer
from monai_ifim.adapt.input_steps import IMAGE, InputSteps, input_steps
from monai_ifim.adapt.random_steps import RandomStepWarning
from monai_ifim.adapt.repeat_check import RepeatCheck, missing_entry
from monai_ifim.adapt.weights import network_with_weights
from monai_ifim.io import InputError, ModelIdentity, OpenedSource, Source, identify_bundle
from monai_ifim.io.errors import innermost, redacted, refusal, unquoted
from monai_ifim.io.model import (
    INFERENCE_CONFIGS,
    METADATA,
    config_path,
    metadata_inputs,
    metadata_output,
    read_metadata,
)

INFERER_CURE = "make it a SimpleInferer in the inference config where the network answers by itself, or a SlidingWindowInferer"
PLANE_CURE = (
    "give the file of one slice (of a DICOM series, one of its files), or let the preprocessing take a plane out of the volume "
    "(SpatialCropd with roi_slices, then SqueezeDimd with dim=-1) and choose --space scanner"
)


@dataclass(frozen=True)
class Bundle:
    """Network, preprocessing and metadata of a bundle, as a decomposition needs them.

    network: as the bundle's inferer calls it, over windows where that is a SlidingWindowInferer.
    channels, spatial_shape: of the image that the network takes, None where not stated. outputs: stated number of classes.
    further: names and shapes without batch axis of the other inputs that the metadata states, in its order.
    head: what its files say of the outputs.
    """

    root: Path
    network: nn.Module
    steps: InputSteps
    identity: ModelIdentity
    channels: int | None
    spatial_shape: tuple[int | str, ...] | None
    outputs: int | None = None
    further: tuple[tuple[str, tuple[int | str, ...]], ...] = ()
    head: HeadReading = field(default_factory=HeadReading)
    repeatable: RepeatCheck = field(default_factory=RepeatCheck, repr=False, compare=False)

    @property
    def spatial_dims(self) -> int | None:
        """2 or 3, None where the metadata does not say."""
        return len(self.spatial_shape) if self.spatial_shape else None

    @property
    def preprocessing(self) -> Compose:
        """The preprocessing as it is run (`InputSteps.compose`)."""
        return self.steps.compose

    @property
    def image_key(self) -> str:
        """The entry of a data dictionary that the network takes; also a name for the image where there is no dictionary."""
        return self.steps.input_key or IMAGE

    @property
    def file_key(self) -> str:
        """The entry under which the image's file is read."""
        return self.steps.file_key or IMAGE

    def preprocess(self, path: Path, beside: Mapping[str, Any] | None = None) -> MetaTensor:
        """The network's input [channel, *spatial] for an image file or series folder, by the bundle's own preprocessing.

        beside: entries of the image's data dictionary besides the image. Raises InputError where the file cannot be read or has
        another number of channels than the network.
        """
        return self.prepare(self.read(path, beside), path)

    def read(self, path: Path, beside: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Run the reading steps of the preprocessing on a file; raises InputError if it cannot be read, or if something is
        missing that the network's input is made of."""
        given = beside or {}
        for key, why in self.steps.beside.items():
            if key not in given:
                raise InputError(
                    f"{path.name}: the network's input is made of '{key}' too ({why} in the preprocessing of bundle "
                    f"{self.root.name}): give it beside the image in a datalist (.json), "
                    f'{{"{IMAGE}": "{path.name}", "{key}": ...}}.'
                )
        try:
            return self.steps(self.steps.data(str(path), given), end=self.steps.reading)
        except Exception as error:
            raise InputError(_unreadable(error, path)) from redacted(error)

    def prepare(self, data: dict[str, Any], path: Path) -> MetaTensor:
        """The network's input [channel, *spatial] from what `read` gave.

        A single slice that its reader gave a third axis is taken as the plane that a 2D network wants.
        Raises InputError where the preprocessing fails or ends in another number of channels than the network takes.
        """
        data = self._of_plane(data)
        read = data[self.file_key]
        self.check_axes(read, path)
        try:
            image = self._prepared(data)
        except InputError:
            raise
        except Exception as error:
            if self.spatial_dims is not None and read.ndim - self.steps.reads_channel_first != self.spatial_dims:
                self._check(read, path, read)
            raise InputError(self._failed(error, read, path)) from error
        if not isinstance(image, MetaTensor):
            raise InputError(
                f"the preprocessing of bundle {self.root.name} gives no MetaTensor under '{self.image_key}': keep track_meta on."
            )
        self._check(image, path, read)
        return image

    def prepared_again(self, data: dict[str, Any], read: MetaTensor) -> Tensor:
        """The network's input [channel, *spatial] that the preprocessing makes of `read` in place of the image in `data`; both
        stay as they are."""
        kept = {key: value for key, value in data.items() if key != self.file_key} | {self.file_key: read}
        copied = {key: value.clone() if isinstance(value, Tensor) else value for key, value in kept.items()}
        made: Tensor = self.steps(self._of_plane(copied), start=self.steps.reading)[self.image_key]
        return made

    def _of_plane(self, data: dict[str, Any]) -> dict[str, Any]:
        """What was read; for a 2D network, a single slice without its third axis."""
        read = data[self.file_key]
        if self.spatial_dims != 2 or read.ndim != 3 + self.steps.reads_channel_first or read.shape[-1] != 1:
            return data
        return data | {self.file_key: SqueezeDim(-1, update_meta=False)(read)}

    def check_axes(self, read: MetaTensor, path: Path) -> None:
        """Raise InputError if a freshly read image has fewer axes than the network takes; preprocessing adds none but that of
        channels."""
        if self.spatial_dims is not None and read.ndim - self.steps.reads_channel_first < self.spatial_dims:
            self._check(read, path, read)

    def _prepared(self, data: dict[str, Any]) -> Any:
        """The steps after reading, which are run once more for the first image to see that they repeat."""
        again = self.repeatable.copied(data)
        made: Any = self.steps(data, start=self.steps.reading)
        if not isinstance(made, Mapping):
            raise InputError(
                f"the preprocessing of bundle {self.root.name} makes {len(made)} images of one: let it make one, or decompose "
                "the mean over windows (PatchAverage in network_def)."
            )
        image = made[self.image_key]
        self.repeatable.check(self.steps, again, image, self.root.name)
        return image

    def example(self, path: Path | None) -> Tensor:
        """An input [channel, *spatial]: the image at `path`, or seeded random numbers of the shape the metadata states.

        Raises InputError where there is neither.
        """
        if path is not None:
            OpenedSource(Source(path)).check(self.channels)
            if self.steps.beside:
                also = ", ".join(map(repr, self.steps.beside))
                raise InputError(f"{path.name}: the network's input is made of {also} too: check it without an image.")
            return self.preprocess(path)
        shape = [size for size in self.spatial_shape or () if isinstance(size, int)]
        if self.channels is None or not shape or len(shape) != self.spatial_dims:
            raise InputError(f"bundle {self.root.name}: its metadata states no input shape; give an image to probe with.")
        return torch.rand(self.channels, *shape, generator=torch.Generator().manual_seed(0))

    def further_examples(self) -> tuple[Tensor, ...]:
        """Seeded random numbers [1, *shape] for each input besides the image; raises InputError for a size not stated."""
        generator = torch.Generator().manual_seed(1)
        examples = []
        for name, shape in self.further:
            sizes = [size for size in shape if isinstance(size, int)]
            if len(sizes) != len(shape):
                raise InputError(f"bundle {self.root.name}: metadata.json states no sizes for input '{name}': {shape}.")
            examples.append(torch.rand(1, *sizes, generator=generator))
        return tuple(examples)

    def _failed(self, error: Exception, read: MetaTensor, path: Path) -> str:
        """What a failing preprocessing says."""
        missing = missing_entry(error)
        if missing is None:
            found = f"{path.name}: the preprocessing of bundle {self.root.name} fails ({innermost(error)})"
            return f"{found} on an image of {_sizes(read.shape)}: give an image like those of the training, or correct it."
        return (
            f"{path.name}: the preprocessing of bundle {self.root.name} looks for an entry that the image's data lacks "
            f"({missing}): give it beside the image in a datalist (.json)."
        )

    def _check(self, image: MetaTensor, path: Path, read: MetaTensor) -> None:
        """Raise InputError for an image, preprocessed or just read, of other channels or axes than the network takes."""
        channels = self.channels is not None and image.shape[0] != self.channels
        axes = self.spatial_dims is not None and image.ndim - 1 != self.spatial_dims
        if (channels or axes) and self._lacks_channel_axis(image, read):
            raise InputError(
                f"{path.name}: read as {_sizes(read.shape)} and preprocessed to {_sizes(image.shape)}, which is not [channel, "
                f"*spatial] as the network of bundle {self.root.name} takes it: add {self._channel_step()} after "
                f"{'LoadImage' if self.steps.file_key is None else 'LoadImaged'} in its inference config."
            )
        if axes:
            cure = "" if self.spatial_dims != 2 or image.ndim != 4 else f": {PLANE_CURE}"
            raise InputError(
                f"{path.name}: an image of {image.ndim - 1} dimensions {tuple(image.shape[1:])}, but the network of bundle "
                f"{self.root.name} takes {self.spatial_dims}{cure}."
            )
        if channels:
            raise InputError(
                f"{path.name}: {image.shape[0]} channel(s), but the network of bundle {self.root.name} takes {self.channels}: "
                "convert the image (a colour picture to grey, say)."
            )

    def _lacks_channel_axis(self, image: MetaTensor, read: MetaTensor) -> bool:
        """True if a file without a channel axis, or with one at its end, got none at the front."""
        spatial = read.meta.get("spatial_shape") if isinstance(read, MetaTensor) else None
        if spatial is None or self.steps.channel_first or image.ndim < (self.spatial_dims or 0):
            return False
        same = image.ndim == read.ndim or image.shape[0] == read.shape[0] > 1
        return same and (read.ndim == len(spatial) or (read.ndim == len(spatial) + 1 and read.shape[-1] == self.channels))

    def _channel_step(self) -> str:
        return "EnsureChannelFirst" if self.steps.file_key is None else f"EnsureChannelFirstd (keys: {self.file_key})"


def load_bundle(root: Path, device: torch.device | str = "cpu", state: Mapping[str, Tensor] | None = None) -> Bundle:
    """Read a bundle's `preprocessing`, and its `network_def` with models/model.safetensors or, without that file, model.pt or,
    without both, the TorchScript model.ts, for which no class need be at hand. Raises InputError naming what is missing.

    state: what `read_state` gave for this bundle; the weights' file is then not read, and on the CPU the network's parameters
    are these very tensors, which may lie in memory that several processes share and none may write to.
    The bundle's config is MONAI's and may run code of its author's: load bundles you trust.
    """
    identity = identify_bundle(root)
    try:
        metadata = read_metadata(root)
        parser = _parse(root)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"bundle {root.name}: its inference config cannot be read ({innermost(error)}): correct it.") from error
    network = network_with_weights(lambda: _content(parser, "network_def", root), root, device, state)
    stated = _content(parser, "inferer", root) if "inferer" in parser else None
    inferer = dividing_inferer(stated, f"bundle {root.name}", INFERER_CURE)
    steps = input_steps(_content(parser, "preprocessing", root), root.name)
    if steps.left_out or steps.constant:
        warnings.warn(f"bundle {root.name}: {_of_chance(steps)}", RandomStepWarning, stacklevel=2)
    image_key = steps.input_key or IMAGE
    inputs = metadata_inputs(metadata)
    image_input = image_key if image_key in inputs else next(iter(inputs), None)
    stated = inputs.get(image_input, {}) if image_input is not None else {}
    channels, shape = stated.get("num_channels"), stated.get("spatial_shape")
    if not isinstance(channels, int | None) or not isinstance(shape, list | None):
        raise InputError(
            f"bundle {root.name}: metadata.json states no number of channels, or no list of sizes, for input '{image_input}': "
            f"num_channels {channels!r}, spatial_shape {shape!r}: correct it."
        )
    head = read_head(root, network)
    if identify_bundle(root) != identity:
        raise InputError(f"bundle {root.name}: its files changed while they were read: run the same command again.")
    return Bundle(
        root=root,
        network=called_by(inferer, network.to(device).eval()),
        steps=steps,
        identity=identity,
        channels=channels,
        spatial_shape=tuple(shape) if shape else None,
        outputs=metadata_output(metadata).get("num_channels"),
        further=tuple((name, _shape(value)) for name, value in inputs.items() if name != image_input),
        head=head,
    )


def _unreadable(error: Exception, path: Path) -> str:
    """Why a file cannot be read: the message of our own readers if they refused the file, else words that quote none of it."""
    ours = refusal(error)
    if ours is not None:
        return str(ours)
    if "allow_pickle" in innermost(error):
        return f"{path.name}: it holds objects or code of Python's, which are not loaded: save plain numbers (numpy.save)."
    return f"{path.name}: cannot be read ({unquoted(error)}): copy it again, or convert it to NIfTI."


def _of_chance(steps: InputSteps) -> str:
    """What was made of the random steps of a preprocessing, and the cure where that is not meant."""
    said = []
    if steps.left_out:
        said.append(
            f"{', '.join(steps.left_out)} in its preprocessing left out, because random: the components belong to the image "
            "without it. Remove such steps from the inference config to say so there."
        )
    if steps.constant:
        said.append(
            f"{', '.join(steps.constant)} in its preprocessing kept, because it does the same for every draw. If it is an "
            "augmentation of the training, remove it from the inference config."
        )
    return " ".join(said)


def _sizes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _shape(stated: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Shape of an input without its batch axis."""
    channels = stated.get("num_channels")
    return (*(() if channels is None else (channels,)), *(stated.get("spatial_shape") or ()))


def _parse(root: Path) -> ConfigParser:
    config = config_path(root)
    if config is None:
        raise InputError(f"bundle {root.name}: none of {', '.join(INFERENCE_CONFIGS)} in it: export the bundle again.")
    if str(root.resolve()) not in sys.path:
        sys.path.append(str(root.resolve()))  # a bundle's own modules (scripts/): MONAI runs bundles from their folder
    content = ConfigParser.load_config_file(str(config))
    if not isinstance(content, dict):
        raise InputError(f"bundle {root.name}: {config.name} is not a mapping of names to definitions: correct it.")
    parser = ConfigParser()
    parser.locator = _components(frozenset(name for name in sys.modules if name.startswith(ComponentLocator.MOD_START)))
    parser.read_config(content)
    if (root / METADATA).is_file():
        parser.read_meta(str(root / METADATA))
    parser["bundle_root"] = str(root)
    return parser


@lru_cache(maxsize=1)
def _components(modules: frozenset[str]) -> ComponentLocator:
    """MONAI's table of short names, of the modules loaded; without it, each parser looks through all of them again."""
    return ComponentLocator()


def _content(parser: ConfigParser, name: str, root: Path) -> Any:
    if name not in parser:
        raise InputError(f"bundle {root.name}: its inference config has no '{name}': define it there under this name.")
    try:
        return parser.get_parsed_content(name)
    except Exception as error:
        raise InputError(
            f"bundle {root.name}: '{name}' cannot be built ({innermost(error)}): correct its inference config, or install the "
            "packages that it names."
        ) from error
