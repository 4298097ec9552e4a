"""Which layer of a network an error comes from, by its module path; used after an error only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[Tensor], Tensor]
INSIDE_PYTORCH = ("CheckpointFunction", "BackwardHookFunction")  # Python functions of PyTorch's own


def layer_named(network: Callable[..., Any], module: nn.Module) -> str:
    """A module in a message: layer 'path' (Class), or the network (Class) for the network itself."""
    path = next((name for name, each in _named_modules(network) if each is module), "")
    kind = getattr(module, "original_name", type(module).__name__)
    return f"layer {path!r} ({kind})" if path else f"the network ({kind})"


def layer_of_error(error: BaseException, network: Callable[..., Any]) -> str:
    """The innermost module of `network` whose forward pass raised the error; "the network" where none is in its traceback."""
    modules = {id(module) for _, module in _named_modules(network)}
    found: nn.Module | None = None
    trace = error.__traceback__
    while trace is not None:
        one = trace.tb_frame.f_locals.get("self")
        found = one if id(one) in modules else found
        trace = trace.tb_next
    return "the network" if found is None else layer_named(network, found)


def layer_without_backward(
    forward: Forward, passes: Callable[[], AbstractContextManager[object]], image: Tensor, network: Callable[..., Any]
) -> str:
    """The layer in whose backward pass an error is raised; "the network" where it is not found by repeating the passes."""
    return _repeated(forward, passes, image, network, lambda graph, output, leaf: _backward(graph, output, leaf, twice=False))


def layer_without_second_derivative(
    forward: Forward, passes: Callable[[], AbstractContextManager[object]], image: Tensor, network: Callable[..., Any]
) -> str:
    """The layer whose backward pass cannot be differentiated; "the network" where it is not found by repeating the passes."""
    return _repeated(forward, passes, image, network, lambda graph, output, leaf: _backward(graph, output, leaf, twice=True))


def layers_with_own_backward(
    forward: Forward, passes: Callable[[], AbstractContextManager[object]], image: Tensor, network: Callable[..., Any]
) -> tuple[str, ...]:
    """Layers that call a `torch.autograd.Function` written in Python, with its name, in the order of the forward pass."""
    names: dict[str, None] = {}
    graph = _LayerGraph(network)
    try:
        with graph.recorded(), passes(), torch.enable_grad():
            forward(image.detach().clone().requires_grad_(True))
    except (RuntimeError, ValueError):
        return ()
    for node, layer in graph.layers.items():
        name = node.name().removesuffix("Backward")
        if isinstance(node, torch.autograd.function.BackwardCFunction) and name not in INSIDE_PYTORCH:
            names.setdefault(f"{name} in {layer}")
    return tuple(names)


class _LayerGraph:
    """Nodes of autograd's graph with the layer that made each; failing: the layer whose node began last."""

    def __init__(self, network: Callable[..., Any]) -> None:
        self.layers: dict[Any, str] = {}
        self.begun = "the network"
        self._network = network

    def recorded(self) -> ExitStack:
        """Context of a forward pass whose nodes are assigned to layers, the innermost that returned their tensor."""
        stack = ExitStack()
        for _, module in _named_modules(self._network):
            if not isinstance(module, torch.jit.ScriptModule):
                handle = module.register_forward_hook(self._leave)
                stack.callback(handle.remove)
        return stack

    def assign(self, value: Any, layer: str) -> list[Any]:
        """Assign every node behind a value that has no layer yet; returns these nodes."""
        waiting = [tensor.grad_fn for tensor in _tensors(value)]
        fresh = []
        while waiting:
            node = waiting.pop()
            if node is not None and node not in self.layers:
                self.layers[node] = layer
                fresh.append(node)
                waiting.extend(following for following, _ in node.next_functions)
        return fresh

    def watch(self, nodes: list[Any]) -> None:
        """Note in `begun` the layer of each of these nodes when its backward pass begins."""
        for node in nodes:
            node.register_prehook(lambda _, layer=self.layers[node]: setattr(self, "begun", layer))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.assign(output, layer_named(self._network, module))


def _repeated(
    forward: Forward,
    passes: Callable[[], AbstractContextManager[object]],
    image: Tensor,
    network: Callable[..., Any],
    backward: Callable[[_LayerGraph, Tensor, Tensor], None],
) -> str:
    graph = _LayerGraph(network)
    leaf = image.detach().requires_grad_(True)
    try:
        with torch.enable_grad():
            with graph.recorded(), passes():
                output = forward(leaf.clone())
            graph.assign(output, "the network")
            backward(graph, output, leaf)
    except (RuntimeError, ValueError):
        return graph.begun
    return "the network"


def _backward(graph: _LayerGraph, output: Tensor, leaf: Tensor, twice: bool) -> None:
    """Run the backward pass, or the backward pass of the backward pass, and note the layers that begin."""
    nodes = list(graph.layers)
    graph.watch(nodes)
    if not twice:
        torch.autograd.grad(output, leaf, torch.ones_like(output), allow_unused=True)
        return
    made: list[Any] = []
    for node in nodes:
        node.register_hook(lambda gradients, _, layer=graph.layers[node]: made.extend(graph.assign(gradients, layer)))
    weights = torch.ones_like(output).requires_grad_(True)
    (gradient,) = torch.autograd.grad(output, leaf, weights, create_graph=True, allow_unused=True)
    refusing = next((node for node in made if node.name() == "torch::autograd::Error"), None)
    if refusing is not None:  # the error of once_differentiable, which is raised only on a way to the weights
        graph.begun = graph.layers[refusing]
        raise RuntimeError("a function marked with once_differentiable")
    graph.watch(made)
    if gradient is not None and gradient.requires_grad:
        torch.autograd.grad(gradient, weights, torch.ones_like(gradient), allow_unused=True)


def _named_modules(network: Callable[..., Any]) -> list[tuple[str, nn.Module]]:
    return list(network.named_modules()) if isinstance(network, nn.Module) else []


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from (tensor for each in value.values() for tensor in _tensors(each))
    elif isinstance(value, (tuple, list)):
        yield from (tensor for each in value for tensor in _tensors(each))
