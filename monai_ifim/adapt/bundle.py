"""A MONAI classification bundle: network with its weights, preprocessing, class names, all from its own files."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # nosec B403 # to tell it from other errors; nothing is unpickled
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, SqueezeDimd, ToTensord
from torch import Tensor, nn

from monai_ifim.io import InputError, ModelIdentity, OpenedSource, Source, identify_bundle
from monai_ifim.io.dicom.reader import register_dicom_reader
from monai_ifim.io.errors import innermost, refusal
from monai_ifim.io.model import (
    INFERENCE_CONFIGS,
    METADATA,
    SCRIPT,
    WEIGHTS,
    config_path,
    metadata_inputs,
    metadata_output,
    read_metadata,
    weights_path,
)

SAME_NETWORK = "give the weights that were saved from this network"
STATE_KEYS = ("model", "network", "net", "state_dict", "model_state_dict")


@dataclass(frozen=True)
class Bundle:
    """Network, preprocessing and metadata of a bundle, as a decomposition needs them.

    channels, spatial_shape: of the image that the network takes, None where not stated. outputs: stated number of classes.
    further: names and shapes without batch axis of the other inputs that the metadata states, in its order.
    """

    root: Path
    network: nn.Module
    preprocessing: Compose
    image_key: str
    identity: ModelIdentity
    channels: int | None
    spatial_shape: tuple[int | str, ...] | None
    outputs: int | None = None
    further: tuple[tuple[str, tuple[int | str, ...]], ...] = ()

    @property
    def spatial_dims(self) -> int | None:
        """2 or 3, None where the metadata does not say."""
        return len(self.spatial_shape) if self.spatial_shape else None

    def preprocess(self, path: Path) -> MetaTensor:
        """The network's input [channel, *spatial] for an image file or series folder, by the bundle's own preprocessing.

        Raises InputError where the file cannot be read or has another number of channels than the network.
        """
        return self.prepare(self.read(path), path)

    def read(self, path: Path) -> dict[str, Any]:
        """Run the reading steps of the preprocessing on a file; raises InputError if it cannot be read."""
        try:
            data: dict[str, Any] = self.preprocessing({self.image_key: str(path)}, end=self._reading_steps())
        except Exception as error:
            raise InputError(_unreadable(error, path)) from error
        return data

    def prepare(self, data: dict[str, Any], path: Path) -> MetaTensor:
        """The network's input [channel, *spatial] from what `read` gave.

        A single slice that its reader gave a third axis is taken as the plane that a 2D network wants.
        Raises InputError where the preprocessing fails or ends in another number of channels than the network takes.
        """
        image = data[self.image_key]
        if self.spatial_dims == 2 and image.ndim == 4 and image.shape[-1] == 1:
            data = SqueezeDimd(self.image_key, dim=-1, update_meta=False)(data)
        read = data[self.image_key]
        self.check_axes(read, path)
        try:
            image = self.preprocessing(data, start=self._reading_steps())[self.image_key]
        except Exception as error:
            self._check(read, path)
            raise InputError(f"{path.name}: the preprocessing of bundle {self.root.name} fails ({innermost(error)}).") from error
        if not isinstance(image, MetaTensor):
            raise InputError(
                f"the preprocessing of bundle {self.root.name} gives no MetaTensor under '{self.image_key}': keep track_meta on."
            )
        self._check(image, path)
        return image

    def check_axes(self, read: MetaTensor, path: Path) -> None:
        """Raise InputError if a freshly read image has fewer axes than the network takes; preprocessing adds none."""
        if self.spatial_dims is not None and read.ndim - 1 < self.spatial_dims:
            self._check(read, path)

    def example(self, path: Path | None) -> Tensor:
        """An input [channel, *spatial]: the image at `path`, or seeded random numbers of the shape the metadata states.

        Raises InputError where there is neither.
        """
        if path is not None:
            OpenedSource(Source(path)).check(self.channels)
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

    def _reading_steps(self) -> int:
        """Number of transforms at the start of the preprocessing that read the file."""
        count = 0
        for transform in self.preprocessing.transforms:
            if not isinstance(transform, (LoadImaged, EnsureChannelFirstd)):
                break
            count += 1
        return count

    def _check(self, image: MetaTensor, path: Path) -> None:
        if self.channels is not None and image.shape[0] != self.channels:
            raise InputError(
                f"{path.name}: {image.shape[0]} channel(s), but the network of bundle {self.root.name} takes {self.channels}: "
                "convert the image (a colour picture to grey, say)."
            )
        if self.spatial_dims is not None and image.ndim - 1 != self.spatial_dims:
            raise InputError(
                f"{path.name}: an image of {image.ndim - 1} dimensions {tuple(image.shape[1:])}, but the network of bundle "
                f"{self.root.name} takes {self.spatial_dims}."
            )


def load_bundle(root: Path, device: torch.device | str = "cpu", state: Mapping[str, Tensor] | None = None) -> Bundle:
    """Read a bundle's `preprocessing`, and its `network_def` with models/model.pt or, without that file, the TorchScript
    in models/model.ts, for which no class need be at hand. Raises InputError naming what is missing.

    state: what `read_state` gave for this bundle; models/model.pt is then not read, and on the CPU the network's parameters
    are these very tensors, which may lie in memory that several processes share and none may write to.
    The bundle's config is MONAI's and may run code of its author's: load bundles you trust.
    """
    try:
        metadata = read_metadata(root)
        parser = _parse(root)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"bundle {root.name}: its inference config cannot be read ({innermost(error)}): correct it.") from error
    network = _network(parser, root, device, state)
    preprocessing = _content(parser, "preprocessing", root)
    if not isinstance(preprocessing, Compose):
        raise InputError(f"bundle {root.name}: preprocessing is {type(preprocessing).__name__}, not a Compose: make it one.")
    image_key = _image_key(preprocessing, root)
    inputs = metadata_inputs(metadata)
    image_input = image_key if image_key in inputs else next(iter(inputs), None)
    stated = inputs.get(image_input, {}) if image_input is not None else {}
    channels, shape = stated.get("num_channels"), stated.get("spatial_shape")
    if not isinstance(channels, int | None) or not isinstance(shape, list | None):
        raise InputError(
            f"bundle {root.name}: metadata.json states no number of channels, or no list of sizes, for input '{image_input}': "
            f"num_channels {channels!r}, spatial_shape {shape!r}: correct it."
        )
    return Bundle(
        root=root,
        network=network.to(device).eval(),
        preprocessing=_with_dicom(_traced(preprocessing.flatten())),
        image_key=image_key,
        identity=identify_bundle(root),
        channels=channels,
        spatial_shape=tuple(shape) if shape else None,
        outputs=metadata_output(metadata).get("num_channels"),
        further=tuple((name, _shape(value)) for name, value in inputs.items() if name != image_input),
    )


def read_state(root: Path) -> dict[str, Any] | None:
    """The weights in a bundle's models/model.pt by their names in the network; None where its network is not loaded from there.

    Raises InputError where the file holds no plain weights.
    """
    path = weights_path(root)
    if path != root / WEIGHTS:
        return None
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"bundle {root.name}: {WEIGHTS} holds no plain weights ({_why_no_weights(error)}.") from error
    for key in STATE_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise InputError(
            f"bundle {root.name}: {WEIGHTS} does not fit network_def (no tensors by their names in it): {SAME_NETWORK}."
        )
    return {name.removeprefix("module."): value for name, value in state.items()}


def _unreadable(error: Exception, path: Path) -> str:
    """Why a file cannot be read: the message of `DicomReader` if it refused the file, else that of MONAI's reader, reworded where
    it advises unsafe loading or names its own internals."""
    ours, said = refusal(error), innermost(error)
    if ours is not None:
        return str(ours)
    if "allow_pickle" in said:
        return f"{path.name}: it holds objects or code of Python's, which are not loaded: save plain numbers (numpy.save)."
    if said.startswith("Could not create IO object"):
        said = "no format that is known"
    return f"{path.name}: cannot be read ({said.replace(str(path), path.name)}): copy it again, or convert it to NIfTI."


def _why_no_weights(error: Exception) -> str:
    """The reason and the cure, without PyTorch's advice to load the file unsafely, which would run code in it."""
    if "TorchScript archive" in str(error):
        return f"a TorchScript archive): name it {SCRIPT}"
    cure = "save what network.state_dict() gives, by torch.save"
    if isinstance(error, UnpicklingError):
        return f"but objects or code of Python's, which are not loaded): {cure}"
    return f"{innermost(error)[:200]}): copy it again, or {cure}"


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
    parser.read_config(content)
    if (root / METADATA).is_file():
        parser.read_meta(str(root / METADATA))
    parser["bundle_root"] = str(root)
    return parser


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


def _network(parser: ConfigParser, root: Path, device: torch.device | str, given: Mapping[str, Tensor] | None) -> nn.Module:
    path = weights_path(root)
    if path is None:
        raise InputError(f"bundle {root.name}: no weights at {WEIGHTS}, nor TorchScript at {SCRIPT}: copy one of them there.")
    if path == root / SCRIPT:
        return _script(path, root, device)
    try:
        with torch.random.fork_rng(devices=[]):  # random initial weights are drawn and then replaced
            network = _content(parser, "network_def", root)
    except InputError as error:
        if not (root / SCRIPT).is_file():
            raise
        raise InputError(f"{error} To use {SCRIPT}, which needs no class, move {WEIGHTS} out of the bundle.") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"bundle {root.name}: network_def is {type(network).__name__}, not a torch module: correct it.")
    state = (read_state(root) or {}) if given is None else given
    try:
        _load_weights(network, state, shared=given is not None)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"bundle {root.name}: {WEIGHTS} does not fit network_def ({reason}): {SAME_NETWORK}.") from error
    return network


def _script(path: Path, root: Path, device: torch.device | str) -> nn.Module:
    try:
        with torch.inference_mode(False), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            network: nn.Module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except Exception as error:
        raise InputError(
            f"bundle {root.name}: {SCRIPT} cannot be loaded ({innermost(error)[:200]}): export the network in eval mode by "
            "torch.jit.script or torch.jit.trace and torch.jit.save. A network saved after torch.jit.optimize_for_inference "
            "cannot be loaded and has no gradients."
        ) from error
    return network


def _load_weights(network: nn.Module, state: Mapping[str, Any], shared: bool) -> None:
    """Copy the weights into the network; shared weights become its parameters without a copy.

    Copied all the same is what copying would change (another dtype or memory layout, tied parameters, of which the last
    counts) and every buffer, because a network may write to its buffers.
    """
    own = dict(network.named_parameters(remove_duplicate=False))
    tied = len({id(parameter) for parameter in own.values()}) < len(own)
    if not shared or tied:
        network.load_state_dict(dict(state))
        return
    places = network.state_dict()
    taken = {name: value if name not in places else _placed(value, places[name], name in own) for name, value in state.items()}
    network.load_state_dict(taken, assign=True)


def _placed(value: Tensor, place: Tensor, parameter: bool) -> Tensor:
    if value.shape != place.shape or (parameter and (value.dtype, value.stride()) == (place.dtype, place.stride())):
        return value
    return torch.empty_like(place).copy_(value)


def _traced(preprocessing: Compose) -> Compose:
    """Replace ToTensord by EnsureTyped: the same conversion, but it keeps the trace that the inverse needs."""
    steps = preprocessing.flatten().transforms
    if not any(isinstance(step, ToTensord) for step in steps):
        return preprocessing
    return Compose(
        [
            EnsureTyped(step.keys, dtype=step.converter.dtype, device=step.converter.device)
            if isinstance(step, ToTensord)
            else step
            for step in steps
        ],
        lazy=preprocessing.lazy,
        overrides=preprocessing.overrides,
    )


def _with_dicom(preprocessing: Compose) -> Compose:
    register_dicom_reader(preprocessing)
    return preprocessing


def _image_key(preprocessing: Compose, root: Path) -> str:
    for transform in preprocessing.flatten().transforms:
        if isinstance(transform, LoadImaged):
            return "image" if "image" in transform.keys else str(transform.keys[0])
    raise InputError(f"bundle {root.name}: its preprocessing has no LoadImaged, which names the image: add it.")
