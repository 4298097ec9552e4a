"""The network as a function of its image: one output tensor, in eval mode, without changes to the caller's modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.dropout import _DropoutNd

from monai_ifim.core.errors import ImageError, NetworkError, TrainingModeWarning, warn_caller
from monai_ifim.core.operator.arguments import for_items
from monai_ifim.core.operator.rows import all_finite

TRAINING_FLAGS = {"dropout": 2, "feature_dropout": 2, "alpha_dropout": 2, "batch_norm": 5}  # index of the flag in the inputs


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
                entries = ", ".join(f"{name!r}: {_describe(value)}" for name, value in output.items())
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
                f"the network returned {_describe(returned)}, not a tensor, so nothing can be differentiated: pass the "
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


def check_image(network: Callable[..., Any], image: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The image as a plain detached tensor; raises ImageError, naming the cure, if it cannot be decomposed.

    dtype: of the passes, if one was requested; the image is converted to it.
    """
    if not isinstance(image, Tensor):
        raise ImageError(f"the image is {_describe(image)}: pass a torch tensor [B, channel, *spatial].")
    image = image.detach().as_subclass(Tensor)
    if not image.is_floating_point():
        raise ImageError(f"the image is {image.dtype}: convert it, image.float(), and scale it as the network was trained.")
    if image.ndim not in (4, 5):
        raise ImageError(
            f"the image has shape {tuple(image.shape)}; [B, channel, H, W] or [B, channel, H, W, D] is needed: "
            "add a missing batch or channel axis with image[None]."
        )
    if image.numel() == 0:
        raise ImageError(f"the image has shape {tuple(image.shape)}, without any element: pass an image with at least one.")
    _check_placement(network, image, any_dtype=dtype is not None)
    image = image if dtype is None else image.to(dtype)
    if not all_finite(image):
        raise ImageError("the image holds NaN or infinite values: mask or clip them first (torch.nan_to_num).")
    return image


@contextmanager
def evaluation_mode(network: Callable[..., Any]) -> Iterator[None]:
    """Context with every submodule in eval mode, no gradients of parameters, and autograd on.

    Modes and parameters are restored afterwards. Without gradients of weights a convolution saves no input.
    """
    modules = [m for m in network.modules() if hasattr(m, "training")] if isinstance(network, nn.Module) else []
    training = [module for module in modules if module.training]
    if any(module is network or isinstance(module, (_NormBase, _DropoutNd)) for module in training):
        warn_caller(
            "the network was in train mode: it is evaluated in eval mode, and its mode restored. Call network.eval() first.",
            TrainingModeWarning,
        )
    parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
    trained = [p for p in parameters if p.requires_grad and not nn.parameter.is_lazy(p) and p.is_leaf and not p.is_inference()]
    with torch.inference_mode(False), torch.enable_grad():
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            if training and isinstance(network, nn.Module):
                with suppress(NotImplementedError):  # modules of torch.export have the mode of their export only
                    network.eval()
            yield
        finally:
            for module in training:
                module.training = True
            for parameter in trained:
                parameter.requires_grad_(True)


def check_independence(predictor: Predictor, image: Tensor, output: Tensor) -> None:
    """Raise NetworkError if the output for one image of a batch depends on the others, or is random.

    image: [B, channel, *spatial]; output: [B, C], the predictor's for the whole batch.
    """
    network = predictor.network
    if isinstance(network, nn.Module):
        modules = list(network.modules())
        unsettled = next((m for m in modules if isinstance(m, _BatchNorm) and m.running_mean is None), None)
        if unsettled is not None:
            name = next(name for name, module in network.named_modules() if module is unsettled)
            raise NetworkError(
                f"layer '{name}' ({type(unsettled).__name__}) has no running statistics, so every output depends on the "
                "rest of the batch: use track_running_stats=True, or instance or group normalisation."
            )
        if any(isinstance(module, torch.jit.ScriptModule) for module in modules):
            _check_scripts(network)
    if image.shape[0] == 1:
        return
    with torch.no_grad():
        alone = predictor(image[:1].clone(), slice(0, 1))
    together = output.detach()[:1]
    tolerance = 10 * torch.finfo(together.dtype).eps ** 0.5
    if float((alone - together).abs().max()) > tolerance * max(1.0, float(together.abs().max())):
        raise NetworkError(
            "the network's output for the first image changes when it is alone in the batch: it depends on the rest of the "
            "batch, or is random (dropout left on). Use layers that treat every image by itself, or one image a batch."
        )


def _refuse_script(network: nn.Module, reason: str) -> None:
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise NetworkError(
            f"{reason}, and TorchScript cannot be given any: convert it yourself, network.double(), image.double()."
        )


def _check_scripts(network: nn.Module) -> None:
    """Raise NetworkError for TorchScript traced in train mode: the mode is part of its graph, which eval() does not change."""
    if not isinstance(network, torch.jit.ScriptModule):
        for child in network.children():
            _check_scripts(child)
        return
    graph: Any = getattr(network, "inlined_graph", None)
    if graph is None:  # a script without a forward
        return
    for kind, place in TRAINING_FLAGS.items():
        for node in graph.findAllNodes(f"aten::{kind}", recurse=True):
            if list(node.inputs())[place].toIValue() is True:
                raise NetworkError(
                    f"the TorchScript has {kind} fixed in train mode, so that its outputs are random or depend on the rest of "
                    "the batch: call network.eval() before torch.jit.trace."
                )


def _run(
    network: Callable[..., Any], frozen: Mapping[str, Tensor], image: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """One forward pass with the parameters and buffers named in `frozen` replaced."""
    if frozen and isinstance(network, nn.Module):
        return torch.func.functional_call(network, dict(frozen), (image, *args), dict(kwargs))
    return network(image, *args, **kwargs)


def _check_placement(network: Callable[..., Any], image: Tensor, any_dtype: bool) -> None:
    parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
    weights = [p for p in parameters if p.is_floating_point()]
    if not weights:
        return
    if all(p.device != image.device for p in weights):
        raise ImageError(f"the image is on {image.device} and the network on {weights[0].device}: move one, image.to(device).")
    autocast = torch.is_autocast_enabled(image.device.type)
    if not autocast and not any_dtype and all(p.dtype != image.dtype for p in weights):
        raise ImageError(f"the image is {image.dtype} and the network {weights[0].dtype}: convert one, image.to(dtype).")


def _usable(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _describe(value: Any) -> str:
    return f"tensor {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
