"""Allocation of maps as large as an image in large pages; getting hundreds of megabytes can take longer than filling them."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

import torch
from torch import Tensor

SMALLEST = 2**24  # bytes; smaller tensors reuse memory of the process


def in_large_pages(fresh: Tensor) -> Tensor:
    """Ask for pages of 2 MiB instead of 4 KiB for a tensor that `torch.empty` made, on Linux; returns the tensor.

    Kernels set to "madvise", as most are, give large pages only on request; they are zeroed several times as fast.
    """
    storage = fresh.untyped_storage()
    advise = _madvise() if fresh.device.type == "cpu" and storage.nbytes() >= SMALLEST else None
    if advise is not None:
        start = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (storage.data_ptr() + storage.nbytes()) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(start, stop - start, mmap.MADV_HUGEPAGE)  # a kernel may ignore the advice
    return fresh


def copy_of(tensor: Tensor) -> Tensor:
    """A copy in the same layout; gradients flow through it."""
    with torch.no_grad():
        fresh = in_large_pages(torch.empty_like(tensor))
    return fresh.copy_(tensor)


@cache
def _madvise() -> Any:
    """The C library's madvise, or None where the system has no large pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
