"""The network as a function of its image, with one output tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.operator.arguments import for_items


@dataclass(frozen=True)
class Predictor:
    """`network(image, *args, **kwargs)[output_key]` as a plain tensor [B, C].

    output_key: index into a tuple or list, or key into a mapping; None takes a tensor as it is, the first entry of a
    tuple or list, and the only entry of a mapping. spatial: True if the output is a map [B, C, *spatial].
    dtype: of copies of the weights that the passes run with; None for the weights as they are.
    """

    network: Callable[..., Any]
    batch: int
    output_key: str | int | None = None
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    spatial: bool = False
    dtype: torch.dtype | None = None

    def __call__(self, image: Tensor, items: slice | Tensor = slice(None)) -> Tensor:
        """Output [B, C] (a map if `spatial`) for `image` [B, channel, *spatial]; items: which images of the batch these are.

        Raises NetworkError for an output of another kind.
        """
        batch = image.shape[0]
        args = [_usable(for_items(value, items, self.batch)) for value in self.args]
        kwargs = {name: _usable(for_items(value, items, self.batch)) for name, value in self.kwargs.items()}
        return self._matrix(self._select(_run(self.bare, self._frozen, image, args, kwargs)), batch)

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
            elif type(network).__name__ == "OptimizedModule" and hasattr(network, "_orig_mod"):
                network = network._orig_mod
            else:
                break
        return network  # type: ignore[no-any-return]

    @cached_property
    def _frozen(self) -> dict[str, Tensor]:
        """Copies of the parameters and buffers that need another dtype, or were made in inference mode and so cannot be saved for
        a backward pass.

        Computed once: visiting all modules costs as much as a pass through a small network.
        """
        network = self.bare
        if not isinstance(network, nn.Module):
            return {}
        tensors = [*network.parameters(), *network.buffers()]
        if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
            raise NetworkError(
                "the network has lazy layers without weights yet: run one forward pass and load its weights first."
            )
        if self.dtype is None and not any(tensor.is_inference() for tensor in tensors):
            return {}
        state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        other = {name: tensor for name, tensor in state.items() if tensor.is_floating_point() and tensor.dtype != self.dtype}
        if self.dtype is not None and other:
            _refuse_script(network, f"the network's weights are not {self.dtype}")
            return {name: tensor.detach().to(self.dtype) for name, tensor in other.items()}
        frozen = {name: tensor.clone() for name, tensor in state.items() if tensor.is_inference()}
        if frozen and any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
            raise NetworkError(
                "the TorchScript network was made or loaded inside torch.inference_mode(), so autograd cannot use its "
                "weights: load it outside torch.inference_mode()."
            )
        return frozen

    def _select(self, output: Any) -> Any:
        key = self.output_key
        if isinstance(output, Mapping):
            if key is None and len(output) == 1:
                return next(iter(output.values()))
            if key not in output:
                entries = ", ".join(f"{name!r}: {describe(value)}" for name, value in output.items())
                raise NetworkError(f"the network returns a mapping; name the logits with output_key, one of {entries}.")
            return output[key]
        if isinstance(output, (tuple, list)):
            index = 0 if key is None else key
            if not isinstance(index, int) or not -len(output) <= index < len(output):
                raise NetworkError(f"the network returns {len(output)} values: output_key={key!r} is none of them.")
            return output[index]
        return output

    def _matrix(self, returned: Any, batch: int) -> Tensor:
        if not isinstance(returned, Tensor):
            raise NetworkError(
                f"the network returned {describe(returned)}, not a tensor, so nothing can be differentiated: pass the "
                "PyTorch module or TorchScript itself (not an ONNX or TensorRT session), or name its logits with output_key."
            )
        output: Tensor = returned.as_subclass(Tensor)  # MONAI's MetaTensor is slow in inner loops
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
            raise NetworkError(
                f"the network's output has shape {tuple(output.shape)}, one answer a voxel: pass head='voxelwise' for a "
                "segmentation ('voxelwise_bernoulli' for independent labels), reduce it to [B, C], or name another output with "
                "output_key."
            )
        return output.flatten(1)


def owner_of(network: Callable[..., Any]) -> Callable[..., Any]:
    """The module of a bound `forward`, because its mode and layers are needed; any other callable unchanged."""
    owner = getattr(network, "__self__", None)
    return owner if isinstance(owner, nn.Module) and getattr(network, "__name__", "") in ("forward", "__call__") else network


def _refuse_script(network: nn.Module, reason: str) -> None:
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise NetworkError(
            f"{reason}, and TorchScript cannot be given any: convert it yourself, network.double(), image.double()."
        )


def _run(
    network: Callable[..., Any], frozen: Mapping[str, Tensor], image: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """One forward pass with the parameters and buffers named in `frozen` replaced."""
    if frozen and isinstance(network, nn.Module):
        return torch.func.functional_call(network, dict(frozen), (image, *args), dict(kwargs))
    return network(image, *args, **kwargs)


def _usable(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def describe(value: Any) -> str:
    """A value in an error message: the shape of a tensor, else the type."""
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
