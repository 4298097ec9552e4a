"""PyTorch's deterministic algorithms during a computation, and a record of what its last digits depend on."""

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
WORKSPACES = (":4096:8", ":16:8")  # with these cuBLAS is deterministic (its manual, section 2.1.4)
_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


@contextmanager
def deterministic_algorithms(wanted: bool, device: torch.device | str = "cpu") -> Iterator[None]:
    """Context in which, if `wanted`, PyTorch uses only operations that repeat to the last bit; restores its settings afterwards.

    The settings hold for all threads of the process. An operation without a deterministic form raises RuntimeError, which
    `refused_operation` explains. Raises IFIMError if the environment does not tell cuBLAS, which reads it once, to be
    deterministic.
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
    cudnn.deterministic, cudnn.benchmark = True, False  # the benchmark chooses algorithms by their time
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        cudnn.deterministic, cudnn.benchmark = before


def configure_cublas(wanted: bool) -> None:
    """Set the environment for `deterministic_algorithms` on a CUDA device, if `wanted`, before the first computation.

    For programs and workers only, whose environment is their own.
    """
    if wanted:
        os.environ.setdefault(WORKSPACE, WORKSPACES[0])


def refused_operation(error: BaseException) -> IFIMError | None:
    """Error for an operation without a deterministic form, if one is in the chain of causes; else None."""
    found: BaseException | None = error
    while found is not None:
        refused = _REFUSED.search(str(found))
        if refused is not None and torch.are_deterministic_algorithms_enabled():
            return IFIMError(
                f"{refused[1]} has no form that repeats to the last bit on this device: leave --deterministic out, compute on "
                "the CPU (--device cpu), where most operations have one, or replace the layer."
            )
        found = found.__cause__ or found.__context__
    return None


def last_digits(image: Tensor) -> dict[str, Any]:
    """What the last digits of a decomposition depend on besides its settings, as plain data: the order of sums changes with
    processor, number of threads and batch. image: [B, channel, *spatial], the images that shared passes."""
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
