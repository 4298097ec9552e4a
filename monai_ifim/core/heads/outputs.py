"""Properties of a network's output: whether it holds probabilities, and which operation made it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SUM_TOLERANCE = 16.0  # how far a row of probabilities may be from summing to one, in units of C eps
LARGEST_SUM_TOLERANCE = 1e-2
HIDDEN = "hidden"  # autograd shows a compiled graph, a clamp or an average instead of the operation
STEP = 2.0**-13  # of the largest entry of a change of the output, for central differences in float64
OPAQUE = ("Clamp", "Compiled", "DifferentiableGraph")
RESHAPES = (
    "View", "Reshape", "Unsafe", "Squeeze", "Unsqueeze", "Slice", "Select", "Clone", "Alias", "ToCopy", "Transpose", "Permute",
    "Flatten",
)  # fmt: skip
AVERAGES = ("AddBackward", "CatBackward", "DivBackward", "MeanBackward", "MulBackward", "StackBackward", "SumBackward")
STITCHING = ("AsStrided", "Expand", "Unbind", "torch::autograd::CopySlices")  # answers of windows written into one map
SCRIPTED_RESHAPES = (
    "view",
    "reshape",
    "squeeze",
    "unsqueeze",
    "slice",
    "select",
    "clone",
    "to",
    "transpose",
    "permute",
    "flatten",
)


def sums_to_one(output: Tensor) -> bool:
    """True if every row of [B, C] is a probability distribution to within the rounding of its dtype."""
    if not bool((output >= 0).all()):
        return False
    values = as_float64(output)
    tolerance = min(LARGEST_SUM_TOLERANCE, SUM_TOLERANCE * output.shape[1] * torch.finfo(output.dtype).eps)
    tolerance = max(tolerance, 1e-6)  # probabilities that went through a file or another program
    return bool(((values.sum(1) - 1).abs() < tolerance).all())


def last_operation(output: Tensor, network: Any = None) -> str | None:
    """'sigmoid' or 'softmax' if autograd shows that it made `output`, up to reshapes; HIDDEN if it cannot tell; else None.

    TorchScript hides its operations from autograd once it has optimised them; there the network's own graph tells.
    """
    if isinstance(network, torch.jit.ScriptModule):
        return _scripted_operation(network)
    node = output.grad_fn
    for _ in range(16):
        if node is None:
            return None
        name = node.name()
        if name.startswith("Sigmoid"):
            return "sigmoid"
        if name.startswith("Softmax"):
            return "softmax"
        if name.startswith(OPAQUE):
            return HIDDEN
        if name.startswith(AVERAGES) and bool(((output >= 0) & (output <= 1)).all()) and _averages_probabilities(node):
            return HIDDEN
        if not name.startswith(RESHAPES) or not node.next_functions:
            return None
        node = node.next_functions[0][0]
    return None


def _averages_probabilities(node: Any) -> bool:
    """True if only sigmoids and softmaxes enter the sums and averages behind a node of autograd's graph."""
    waiting, seen = [node], {node}
    while waiting:
        node = waiting.pop()
        behind = {before for before, _ in node.next_functions if before is not None}
        if node.name().startswith(("Sigmoid", "Softmax")):
            continue
        if not node.name().startswith((*RESHAPES, *AVERAGES, *STITCHING)) or not behind:
            return False
        waiting.extend(behind - seen)
        seen |= behind
    return True


def _scripted_operation(network: torch.jit.ScriptModule) -> str | None:
    """The last operation in the graph of a TorchScript network that returns one tensor."""
    outputs = list(network.inlined_graph.outputs())
    node = outputs[0].node() if len(outputs) == 1 else None
    for _ in range(16):
        if node is None:
            return None
        kind = node.kind().removeprefix("aten::")
        if kind in ("sigmoid", "softmax"):
            return kind
        if kind not in SCRIPTED_RESHAPES:
            return None
        node = next(iter(node.inputs())).node()
    return None


def as_float64(values: Tensor) -> Tensor:
    """Detached float64 values, on the CPU where the device has no float64 (Apple's MPS)."""
    values = values.detach()
    return (values.cpu() if values.device.type == "mps" else values).to(torch.float64)


def differentiated(answers: Callable[[Tensor], Tensor], output: Tensor, changes: Tensor) -> Tensor:
    """Derivative of answers(output) [B, C] along changes [B, m, *output], [B, m, C] float64, by central differences."""
    z, found = as_float64(output), []
    for change in as_float64(changes).unbind(1):
        largest = change.flatten(1).abs().amax(1)
        step = STEP / torch.where(largest > 0, largest, 1.0)
        moved = change * step.reshape(-1, *[1] * (z.ndim - 1))
        found.append((answers(z + moved) - answers(z - moved)) / (2 * step[:, None]))
    return torch.stack(found, dim=1)
