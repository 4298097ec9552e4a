"""The network as a function of its image, with one output tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.operator.arguments import for_items
from monai_ifim.core.operator.conversion import converted
from monai_ifim.core.operator.eager_execution import without_compiler
from monai_ifim.core.operator.output_selection import OutputSelection, shape_of
from monai_ifim.core.operator.refusals import forward_refusal


class MapOutputError(NetworkError):
    """An output at every voxel where one answer an image is expected."""


@dataclass(frozen=True)
class Predictor:
    """`network(image, *args, **kwargs)` as a plain tensor [B, C].

    output_key: name, number or path of the entry that holds the logits; `OutputSelection` says what None takes.
    spatial: True if the output is a map [B, C, *spatial]. dtype: of a copy of the network that the passes run with; None for
    the weights as they are.
    """

    network: Callable[..., Any]
    batch: int
    output_key: str | int | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    spatial: bool = False
    dtype: torch.dtype | None = None
    _copies: dict[tuple[int, torch.dtype | None], Callable[..., Any]] = field(default_factory=dict, repr=False, compare=False)
    selection: OutputSelection = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "selection", OutputSelection(self.output_key))

    def __call__(self, image: Tensor, items: slice | Tensor = slice(None)) -> Tensor:
        """Output [B, C] (a map if `spatial`) for `image` [B, channel, *spatial]; items: which images of the batch these are.

        Raises NetworkError for an output of another kind, and where PyTorch refuses an operation of the network.
        """
        args = [self._usable(for_items(value, items, self.batch)) for value in self.args]
        kwargs = {name: self._usable(for_items(value, items, self.batch)) for name, value in self.kwargs.items()}
        network = self.running
        try:
            returned = network(image, *args, **kwargs)
        except RuntimeError as error:
            refusal = forward_refusal(error, network)
            if refusal is None:
                raise
            raise refusal from error
        return self._matrix(self.selection(returned, image, self.spatial), image.shape[0])

    def part(self, items: slice) -> Predictor:
        """The predictor for some images of the batch, with their entries of the arguments."""
        args = [for_items(value, items, self.batch) for value in self.args]
        kwargs = {name: for_items(value, items, self.batch) for name, value in self.kwargs.items()}
        return replace(self, batch=len(range(*items.indices(self.batch))), args=args, kwargs=kwargs)

    @property
    def bare(self) -> Callable[..., Any]:
        """The network without DataParallel and torch.compile wrappers: these are for training, and a compiled module frees its
        buffers after one backward pass."""
        network: Any = self.network
        while True:
            if isinstance(network, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
                network = network.module
            elif (inner := without_compiler(network)) is not network:
                network = inner
            else:
                return network  # type: ignore[no-any-return]

    @cached_property
    def running(self) -> Callable[..., Any]:
        """The network that the passes run: `bare`, or a copy of it where it needs another dtype or was made in inference mode.

        Found once: visiting all modules costs as much as a pass through a small network. The copy belongs to this predictor and
        those made from it. Raises NetworkError for lazy layers.
        """
        network = self.bare
        key = (id(network), self.dtype)
        if key not in self._copies:
            tensors = [*network.parameters(), *network.buffers()] if isinstance(network, nn.Module) else []
            if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
                raise NetworkError(
                    "the network has lazy layers without weights yet: run one forward pass and load its weights first."
                )
            changes = self.dtype is not None or any(tensor.is_inference() for tensor in tensors)
            self._copies[key] = converted(network, self.dtype) if changes else network
        return self._copies[key]

    def _usable(self, value: Any) -> Any:
        """An argument of the network in the dtype of the passes, and not made in inference mode."""
        if isinstance(value, (dict, list, tuple)):
            return tree_map(self._usable_tensor, value)
        return self._usable_tensor(value)

    def _usable_tensor(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = value.clone() if value.is_inference() else value
        return value if self.dtype is None or not value.is_floating_point() else value.to(self.dtype)

    def _matrix(self, returned: Any, batch: int) -> Tensor:
        if not isinstance(returned, Tensor):
            raise NetworkError(
                f"the network returned {describe(returned)}, not a tensor, so nothing can be differentiated: pass the "
                "PyTorch module or TorchScript itself (not an ONNX or TensorRT session), or name its logits with output_key."
            )
        if returned.layout != torch.strided or returned.is_nested:
            raise NetworkError(f"the network's output is {shape_of(returned)}: return a dense tensor, output.to_dense().")
        output: Tensor = returned.as_subclass(Tensor)  # MONAI's MetaTensor is slow in inner loops
        if output.is_complex():
            raise NetworkError(f"the network's output is {output.dtype}: return real logits, for instance their .abs() or .real.")
        if not output.is_floating_point():
            raise NetworkError(f"the network's output is {output.dtype}: return the logits, not class indices.")
        if output.ndim == 0 or output.shape[0] != batch:
            raise NetworkError(
                f"the network's output has shape {tuple(output.shape)} for {batch} image(s): its first axis must be the batch."
            )
        if output.ndim == 1:
            return output[:, None]
        if self.spatial:
            return output
        if output.ndim > 2 and output[0, 0].numel() != 1:
            raise MapOutputError(
                f"the network's output has shape {tuple(output.shape)}, one answer a voxel: pass head='volumes' or "
                "head='voxelwise' for a segmentation ('volumes_bernoulli', 'voxelwise_bernoulli' for independent "
                "labels), reduce it to [B, C], or name another output with output_key."
            )
        return output.flatten(1)


def owner_of(network: Callable[..., Any]) -> Callable[..., Any]:
    """The module of a bound `forward`, because its mode and layers are needed; any other callable unchanged."""
    owner = getattr(network, "__self__", None)
    return owner if isinstance(owner, nn.Module) and getattr(network, "__name__", "") in ("forward", "__call__") else network


def describe(value: Any) -> str:
    """A value in an error message: the shape of a tensor, else the type."""
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
