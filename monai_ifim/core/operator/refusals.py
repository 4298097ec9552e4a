"""What PyTorch refuses in a network, said with the layer and the cure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.operator.failing_layers import layer_of_error

MEMORY = re.compile(r"out of memory|allocate memory|CUBLAS_STATUS_ALLOC_FAILED|not enough memory", re.IGNORECASE)
ADDRESS_OF_HELP = re.compile(r"(Hint: |You can fix this|Please (do not|file)|To work around|To resolve).*", re.DOTALL)
BUFFER = "register it as a buffer (register_buffer)"

IN_FORWARD: tuple[tuple[str, str], ...] = (
    (
        r"BackwardHookFunction\w* is a view and is being modified inplace",
        "a backward hook stands before this layer, which writes into its input: remove the hooks (handle.remove()), or set "
        "inplace=False in this layer.",
    ),
    (
        r"modified inplace|modified by an inplace operation|leaf Variable that requires grad",
        "write it out of place: inplace=False, x = x + 1 in place of x += 1.",
    ),
    (
        r"same device|on different devices|two devices|meta tensor|is not on the expected device|"
        r"\(torch\.cuda\.\w+\) and \w+ type \(torch\.(?!cuda)|\(torch\.(?!cuda)\w+\) and \w+ type \(torch\.cuda",
        f"a tensor of it is on another device than the image: {BUFFER}, so that network.to(device) moves it; move further inputs "
        "with value.to(image.device).",
    ),
    # before the dtypes: some kernels, chosen by the number of threads, name the sparse type as another dtype
    (
        r"(?i)could not run '.*' with arguments from the|not implemented for .*(sparse|quantized)|unsupported for sparse|"
        r"unsupported (memory format|tensor layout)|sparse tensors? do(es)? not|torch\.sparse\.",
        "this operation does not exist for such tensors: pass the network with dense floating-point weights, and call "
        ".to_dense() on what is sparse.",
    ),
    (
        r"same dtype|scalar type|type .* should be the same|dtypes? (must )?match|dtype to be equal",
        f"a tensor of it has another dtype than the others: {BUFFER}, so that network.to(dtype) and precision= "
        "convert it; convert a global tensor where it is used, weight.to(x.dtype).",
    ),
    (
        r"[Ii]nference tensor",
        f"it uses a tensor that was made in torch.inference_mode(): make it outside, use its .clone(), or {BUFFER}.",
    ),
    (
        r"Can't call numpy\(\) on Tensor that requires grad",
        "numpy code has no derivative: write it with operations of PyTorch.",
    ),
    (
        r"cannot register a hook on a tensor that doesn't require gradient",
        "some passes run without gradients: register the hook only where there is one, if x.requires_grad: x.register_hook(...).",
    ),
    (
        r"support saved tensor hooks",
        "it differentiates in its own forward pass, which no memory_budget can be kept for: leave memory_budget out.",
    ),
    (
        r"element 0 of tensors does not require grad",
        "it differentiates in its own forward pass, which runs without gradients too: do that under torch.enable_grad(), with "
        "respect to a tensor that requires a gradient.",
    ),
)
IN_BACKWARD: tuple[tuple[str, str], ...] = (
    *IN_FORWARD[:2],
    (
        r"must implement either the backward or vjp|must implement the backward",
        "give this torch.autograd.Function a backward(), or write it with differentiable operations of PyTorch.",
    ),
    (
        r"derivative for .* is not implemented",
        "replace this operation by one that has a derivative.",
    ),
    (
        r"RNN backward can only be called in training mode",
        "decompose it without cuDNN: with torch.backends.cudnn.flags(enabled=False): decompose(...).",
    ),
    (
        r"through the graph a second time|already been freed",
        "its graph is freed before: give create_graph=True to its own torch.autograd.grad, and .detach() what it keeps from one "
        "pass to the next.",
    ),
    (
        r"incorrect number of gradients|returned an invalid gradient",
        "return from backward() one gradient for each input, of the input's shape, None for those without.",
    ),
    (
        r"(incompatible|compatible) with \.grad\(\)|One of the differentiated Tensors does not require grad|"
        r"Recomputed values|different number of tensors was saved",
        "switch the network's own checkpointing off, or use torch.utils.checkpoint.checkpoint(..., use_reentrant=False); "
        "memory_budget= checkpoints layers by itself.",
    ),
    *IN_FORWARD[2:],
)


def stays(error: RuntimeError) -> bool:
    """True where memory ran out, which says nothing of the network."""
    return isinstance(error, torch.OutOfMemoryError) or MEMORY.search(str(error)) is not None


def cure_of(error: RuntimeError, known: tuple[tuple[str, str], ...]) -> str | None:
    """The cure of a refusal of PyTorch, None for any other error."""
    said = str(error)
    return next((cure for pattern, cure in known if re.search(pattern, said)), None)


def forward_refusal(error: RuntimeError, network: Callable[..., Any]) -> NetworkError | None:
    """The error of a forward pass with its layer and cure; None where it is to stay as it is, as the network's own errors are."""
    cure = None if stays(error) else cure_of(error, IN_FORWARD)
    return None if cure is None else NetworkError(f"{layer_of_error(error, network)}: {said_by(error)}: {cure}")


def said_by(error: BaseException) -> str:
    """What an error says in one line, without PyTorch's own advice."""
    text = ADDRESS_OF_HELP.sub("", str(error)).strip() or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    scripted = [line for line in lines if line.startswith("RuntimeError: ")]  # behind the source of a TorchScript
    told = (scripted[-1:] or lines[:1] or [type(error).__name__])[0]
    return told.removeprefix("RuntimeError: ").rstrip(".:")
