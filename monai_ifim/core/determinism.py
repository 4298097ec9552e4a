"""PyTorch's deterministic algorithms for the time of a computation, and what decides the last digits of its numbers."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.errors import IFIMError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")  # with these cuBLAS repeats its sums (its manual, section 2.1.4)
_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic_algorithms(wanted: bool, device: torch.device | str = "cpu") -> Iterator[None]:
    """Only operations that repeat to the last bit inside, where wanted; afterwards PyTorch's settings are those before.

    The settings are PyTorch's own and hold for all threads of the process. An operation without such a form raises
    RuntimeError, which `refused_operation` puts into plain words. Raises IFIMError where cuBLAS, which reads its environment
    once, was not told to repeat its sums.
    """
    if not wanted:
        yield
        return
    if torch.device(device).type == "cuda" and os.environ.get(WORKSPACE) not in WORKSPACES:
        raise IFIMError(
            f"deterministic algorithms on {device} need the environment variable {WORKSPACE}={WORKSPACES[0]} before the first "
            "computation there: set it and start Python again."
        )
    cudnn = torch.backends.cudnn
    before = (cudnn.deterministic, cudnn.benchmark)
    mode = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False  # its benchmark chooses by the clock
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        cudnn.deterministic, cudnn.benchmark = before


def tell_cublas(wanted: bool) -> None:
    """Prepare this process, before its first computation, for `deterministic_algorithms` on a CUDA device, where wanted; for
    programs and workers, whose environment is their own."""
    if wanted:
        os.environ.setdefault(WORKSPACE, WORKSPACES[0])


def refused_operation(error: BaseException) -> IFIMError | None:
    """What to say where a chain of errors began with an operation that has no deterministic form; None for other errors."""
    found: BaseException | None = error
    while found is not None:
        refused = _REFUSED.search(str(found))
        if refused is not None and torch.are_deterministic_algorithms_enabled():
            return IFIMError(
                f"{refused[1]} has no form that repeats to the last bit on this device: leave --deterministic out, compute on "
                "the CPU (--device cpu), where most operations have one, or put another layer in its place."
            )
        found = found.__cause__ or found.__context__
    return None


def last_digits(image: Tensor) -> dict[str, Any]:
    """What decides the last digits of a decomposition besides its settings, as plain data: another processor, number of
    threads or batch adds in another order. image: [B, channel, *spatial], the images that shared passes."""
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "batch": image.shape[0],
        "threads": torch.get_num_threads(),
        "processor": _processor(image.device),
    }


def _processor(device: torch.device) -> str:
    """Name of the accelerator, or the family of the CPU with the widest instructions that PyTorch uses there."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}" if device.type == "cpu" else platform.machine()
