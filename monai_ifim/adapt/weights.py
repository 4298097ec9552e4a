"""The network of a bundle with its weights, from models/model.safetensors or model.pt, or as the TorchScript model.ts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError  # nosec B403 # to tell it from other errors; nothing is unpickled
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from monai_ifim.io import InputError
from monai_ifim.io.errors import innermost
from monai_ifim.io.model import SAFE_WEIGHTS, SCRIPT, WEIGHTS, weights_path

SAME_NETWORK = "give the weights that were saved from this network"
STATE_KEYS = ("model", "network", "net", "state_dict", "model_state_dict")


def network_with_weights(
    definition: Callable[[], Any], root: Path, device: torch.device | str, given: Mapping[str, Tensor] | None
) -> nn.Module:
    """The network of the bundle in `root`; raises InputError naming what is missing.

    definition: makes what `network_def` describes. given: its weights as `read_state` gave them, which become its parameters
    without a copy; None reads them.
    """
    path = weights_path(root)
    if path is None:
        raise InputError(
            f"bundle {root.name}: no weights at {SAFE_WEIGHTS} or {WEIGHTS}, nor TorchScript at {SCRIPT}: copy one of them there."
        )
    if path == root / SCRIPT:
        return _script(path, root, device)
    try:
        with torch.random.fork_rng(devices=[]):  # random initial weights are drawn and then replaced
            network = definition()
    except InputError as error:
        if not (root / SCRIPT).is_file():
            raise
        raise InputError(f"{error} To use {SCRIPT}, which needs no class, move {_named(path)} out of the bundle.") from error
    if not isinstance(network, nn.Module):
        raise InputError(f"bundle {root.name}: network_def is {type(network).__name__}, not a torch module: correct it.")
    state = (read_state(root) or {}) if given is None else given
    try:
        _load_weights(network, state, shared=given is not None)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"bundle {root.name}: {_named(path)} does not fit network_def ({reason}): {SAME_NETWORK}.") from error
    return network


def read_state(root: Path) -> dict[str, Any] | None:
    """The weights in a bundle's models/model.safetensors, or else model.pt, by their names in the network; None where its
    network is not loaded from there.

    Raises InputError where the file holds no plain weights.
    """
    path = weights_path(root)
    if path is None or path == root / SCRIPT:
        return None
    state: Any = _read_safetensors(path, root) if path == root / SAFE_WEIGHTS else _read_checkpoint(path, root)
    return {name.removeprefix("module."): value for name, value in state.items()}


def _read_safetensors(path: Path, root: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"bundle {root.name}: {SAFE_WEIGHTS} holds no tensors ({innermost(error)[:200]}): copy it again, or save what "
            "network.state_dict() gives, by safetensors.torch.save_file."
        ) from error


def _read_checkpoint(path: Path, root: Path) -> Mapping[str, Any]:
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
    return state


def _named(path: Path) -> str:
    """A file of weights by its folder and name, as in SAFE_WEIGHTS."""
    return f"{path.parent.name}/{path.name}"


def _why_no_weights(error: Exception) -> str:
    """The reason and the cure, without PyTorch's advice to load the file unsafely, which would run code in it."""
    if "TorchScript archive" in str(error):
        return f"a TorchScript archive): name it {SCRIPT}"
    cure = "save what network.state_dict() gives, by torch.save"
    if isinstance(error, UnpicklingError):
        return f"but objects or code of Python's, which are not loaded): {cure}"
    return f"{innermost(error)[:200]}): copy it again, or {cure}"


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
    state = _with_tied(network, state)
    own = dict(network.named_parameters(remove_duplicate=False))
    tied = len({id(parameter) for parameter in own.values()}) < len(own)
    if not shared or tied:
        network.load_state_dict(dict(state))
        return
    places = network.state_dict()
    taken = {name: value if name not in places else _placed(value, places[name], name in own) for name, value in state.items()}
    network.load_state_dict(taken, assign=True)


def _with_tied(network: nn.Module, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The weights with every name of a tied tensor, of which a safetensors file holds one alone."""
    names: dict[int, list[str]] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    groups = (group for group in names.values() if len(group) > 1)
    given = ((group, next((name for name in group if name in state), None)) for group in groups)
    return {name: state[there] for group, there in given if there is not None for name in group if name not in state} | dict(
        state
    )


def _placed(value: Tensor, place: Tensor, parameter: bool) -> Tensor:
    if value.shape != place.shape or (parameter and (value.dtype, value.stride()) == (place.dtype, place.stride())):
        return value
    return torch.empty_like(place).copy_(value)
