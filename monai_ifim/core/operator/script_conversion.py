"""Copies of TorchScript modules whose floating tensors, also those fixed in the program, have another dtype."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import torch

from monai_ifim.core.errors import NetworkError


def converted_script(script: torch.jit.ScriptModule, dtype: torch.dtype | None) -> torch.jit.ScriptModule:
    """A copy of a TorchScript with its floating tensors in `dtype` (None: as they are).

    Freezing and tracing make tensors constants of the program, which `script.to(dtype)` leaves alone; they are converted too.
    Raises NetworkError where the program cannot be written and read again.
    """
    written = io.BytesIO()
    try:
        torch.jit.save(script, written)  # copy.deepcopy would share the program
        written.seek(0)
        fresh: torch.jit.ScriptModule = torch.jit.load(written)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise NetworkError(
            f"the TorchScript {script.original_name} cannot be written to memory and read again, which precision= needs: leave "
            f"precision= out, or convert the network before it is scripted, network.to(dtype). PyTorch says: {error}"
        ) from error
    if dtype is None:
        return fresh
    for constant in _tensor_constants(fresh):
        if constant.t("value").is_floating_point():
            value = constant.t("value").to(dtype)
            constant.t_("value", value)
            constant.output().inferTypeFrom(value)
    fresh.to(dtype)
    return fresh


def _tensor_constants(script: torch.jit.ScriptModule) -> Iterator[Any]:
    """Nodes of all programs of a TorchScript that hold a tensor."""
    for module in script.modules():
        program: Any = module._c
        for name in program._method_names():
            for node in program._get_method(name).graph.findAllNodes("prim::Constant", recurse=True):
                if node.hasAttribute("value") and node.kindOf("value") == "t":
                    yield node
