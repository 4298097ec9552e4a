"""Any network class as an architecture, named by its `_target_` as in MONAI's configs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from monai.bundle import ComponentLocator, ConfigComponent
from monai.utils import instantiate
from torch import Tensor, nn

from monai_ifim.core import IFIMError

__all__ = ["NetworkRecipe", "protect_recipes"]

# Names of constructor parameters in monai.networks.nets, by what they mean.
DIMENSIONS = ("spatial_dims", "dimensions", "dim")
CHANNELS = ("in_channels", "n_input_channels", "num_channels")
CLASSES = ("num_classes", "out_channels", "classes")
SIZES = ("img_size", "image_size", "input_size")
TARGET, DESCRIPTION = "_target_", "_desc_"


@dataclass(frozen=True)
class NetworkRecipe:
    """A network class and its options; the options that depend on the task are filled in when it is built.

    target: MONAI's name of the class, or a dotted path. options: keyword arguments. Filled in where the class has such a
    parameter and `options` lacks it: number of spatial axes, channels, classes, image size, and pretrained=False.
    Raises IFIMError for a class that cannot be found or for pretrained weights.
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._constructor()
        if self.options.get("pretrained"):
            raise IFIMError(f"{self.name}: pretrained weights would be in the untrained twin too: leave pretrained out.")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> NetworkRecipe:
        """The recipe of {"_target_": name, option: value, ...}; raises IFIMError without a name, and for other special keys."""
        special = {key for key in config if key.startswith("_")} - {TARGET, DESCRIPTION}
        if not isinstance(config.get(TARGET), str) or special:
            raise IFIMError(f"architecture {dict(config)!r}: give the class as _target_ and its options, no other special key.")
        return cls(config[TARGET], {key: value for key, value in config.items() if key not in (TARGET, DESCRIPTION)})

    @property
    def name(self) -> str:
        """Name of the class, without its module."""
        return self.target.rpartition(".")[2]

    def build(self, spatial_shape: Sequence[int], channels: int, classes: int) -> nn.Module:
        """The network for images [channels, *spatial_shape]; its initial weights depend on torch's random state.

        Raises IFIMError if it cannot be built or does not give one logit per class.
        """
        filled = self._filled(tuple(spatial_shape), channels, classes)
        try:
            network = instantiate(self._path(), "default", **filled)
            with torch.no_grad():
                output = network.eval()(torch.zeros(2, channels, *spatial_shape))
        except Exception as error:
            given = ", ".join(f"{name}={value!r}" for name, value in filled.items())
            raise IFIMError(
                f"{self.name} cannot be built for images {[channels, *spatial_shape]} ({' '.join(str(error).split())}). It got "
                f"{given}: add or correct options of the architecture."
            ) from error
        logits = output[0] if isinstance(output, (tuple, list)) and output else output
        if not isinstance(logits, Tensor) or tuple(logits.shape) != (2, classes):
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise IFIMError(
                f"{self.name} gives {found} for two images, where logits (2, {classes}) are needed: choose a classifier, or set "
                f"the options that make it one (ViT: classification, Classifier: classes)."
            )
        return network

    def _path(self) -> str:
        found = ConfigComponent({TARGET: self.target}, locator=_LOCATOR).resolve_module_name()
        if not isinstance(found, str):
            raise IFIMError(f"architecture {self.target!r} is not a name: give MONAI's name of a class, or a dotted path.")
        return found

    def _constructor(self) -> Callable[..., Any]:
        try:
            found = instantiate(self._path(), "callable")
        except Exception as error:
            raise IFIMError(
                f"architecture {self.target!r} is not a class that can be found: give a name such as "
                "monai.networks.nets.DenseNet121, or one of the built-in architectures."
            ) from error
        return found

    def _filled(self, spatial_shape: tuple[int, ...], channels: int, classes: int) -> dict[str, Any]:
        """The options with those of the task; raises IFIMError if the number of classes has no place."""
        known = _parameters(self._constructor())
        values: dict[str, Any] = {
            **dict.fromkeys(DIMENSIONS, len(spatial_shape)),
            **dict.fromkeys(CHANNELS, channels),
            **dict.fromkeys(CLASSES, classes),
            **dict.fromkeys(SIZES, spatial_shape),
            "in_shape": (channels, *spatial_shape),
            "pretrained": False,
        }
        filled = {name: value for name, value in values.items() if name in known} | dict(self.options)
        if not set(CLASSES) & set(filled):
            raise IFIMError(
                f"{self.name} has no parameter for the number of classes ({', '.join(CLASSES)}): name a class that has one, or "
                "give it among the options."
            )
        return filled


_LOCATOR = ComponentLocator()


def _parameters(constructor: Callable[..., Any]) -> set[str]:
    """Names of the parameters of a class or function; of a class that passes **kwargs on, also those of its base classes."""
    signature = inspect.signature(constructor)
    names = set(signature.parameters)
    passes_on = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())
    if passes_on and inspect.isclass(constructor):
        for base in constructor.__bases__:
            names |= _parameters(base) if base not in (object, nn.Module) else set()
    return names


def protect_recipes(config: Any) -> Any:
    """The raw config with every `architecture` of a TrainedModel that has a `_target_` as a NetworkRecipe.

    MONAI's parser would otherwise build the network itself, before the task is known.
    """
    if isinstance(config, list):
        return [protect_recipes(value) for value in config]
    if not isinstance(config, Mapping):
        return config
    found = {key: protect_recipes(value) for key, value in config.items()}
    architecture = found.get("architecture")
    if str(found.get(TARGET, "")).endswith("TrainedModel") and isinstance(architecture, Mapping):
        recipe = NetworkRecipe.of(architecture)
        own = f"{NetworkRecipe.__module__}.{NetworkRecipe.__qualname__}"
        found["architecture"] = {TARGET: own, "target": recipe.target, "options": dict(recipe.options)}
    return found
