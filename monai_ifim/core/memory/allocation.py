"""Memory of maps as large as an image: where these are hundreds of megabytes, getting it takes longer than filling it."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

import torch
from torch import Tensor

SMALLEST = 2**24  # bytes: less comes from memory that the process has already


def in_large_pages(fresh: Tensor) -> Tensor:
    """A tensor as it comes from `torch.empty`, given memory in pages of 2 MiB instead of 4 KiB once it is written, on Linux.

    A kernel set to "madvise", as most are, gives them to those alone who ask, and zeroes them several times as fast.
    """
    storage = fresh.untyped_storage()
    advise = _madvise() if fresh.device.type == "cpu" and storage.nbytes() >= SMALLEST else None
    if advise is not None:
        start = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (storage.data_ptr() + storage.nbytes()) // mmap.PAGESIZE * mmap.PAGESIZE
        advise(start, stop - start, mmap.MADV_HUGEPAGE)  # a kernel that does not take the advice changes nothing
    return fresh


def copy_of(tensor: Tensor) -> Tensor:
    """A copy in the same layout; gradients flow through it."""
    with torch.no_grad():
        fresh = in_large_pages(torch.empty_like(tensor))
    return fresh.copy_(tensor)


@cache
def _madvise() -> Any:
    """The C library's function, or None where the system knows no such pages."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function = ctypes.CDLL(None).madvise
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
