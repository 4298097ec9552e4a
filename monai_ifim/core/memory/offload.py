"""Offloads tensors: from an accelerator to pinned host memory, from the CPU to files.

Files are written and read piece by piece rather than mapped, because mapped pages count as resident memory, which is to be
bounded. They are in the system's folder for temporary files (TMPDIR) and are removed with the object that stands for them.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.errors import IFIMError
from monai_ifim.core.memory.saved_tensor import SavedTensor
from monai_ifim.core.memory.scratch import ScratchFolder

SMALLEST = 2**16  # bytes; smaller activations stay in memory


class Offload:
    """Stores tensors outside the memory that they were computed in."""

    def __init__(self) -> None:
        self._folder: ScratchFolder | None = None
        self._count = 0

    def put(self, tensor: Tensor) -> StoredFile | StoredHost:
        """Store a copy of the tensor; raises IFIMError where the disk is full or cannot be written."""
        tensor = tensor.detach()
        if tensor.device.type != "cpu":
            host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.device.type == "cuda")
            return StoredHost(host.copy_(tensor, non_blocking=True), tensor.device)
        if self._folder is None:
            self._folder = ScratchFolder()
        self._count += 1
        return_freed_memory()
        path = self._folder.path / str(self._count)
        try:
            with path.open("wb") as file:
                for piece in _pieces(tensor):
                    file.write(_bytes_of(piece))
        except OSError as error:
            raise IFIMError(
                f"tensors beyond the memory budget cannot be written to {self._folder.path} ({error.strerror}): free some space, "
                "name another folder with TMPDIR, or raise memory_budget."
            ) from error
        stored = StoredFile(path, tuple(tensor.shape), tensor.dtype)
        weakref.finalize(stored, path.unlink, missing_ok=True)
        return stored


@dataclass(frozen=True, eq=False)
class StoredFile:
    """A CPU tensor in a file, row-major."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    def get(self) -> Tensor:
        """The tensor, read from the file."""
        return_freed_memory()
        tensor = torch.empty(self.shape, dtype=self.dtype, device="cpu")
        with self.path.open("rb", buffering=0) as file:
            _read_into(file, tensor.reshape(-1))
        return tensor

    def window(self, start: int, stop: int) -> Tensor:
        """Columns start to stop of a tensor [B, D]; see `row_storage.Row`."""
        batch, size = self.shape
        part = torch.empty(batch, stop - start, dtype=self.dtype, device="cpu")
        with self.path.open("rb", buffering=0) as file:
            for b in range(batch):
                file.seek((b * size + start) * self.dtype.itemsize)
                _read_into(file, part[b])
        return part


@dataclass(frozen=True, eq=False)
class StoredHost:
    """An accelerator's tensor in host memory."""

    values: Tensor
    device: torch.device

    def get(self) -> Tensor:
        """The tensor on its device."""
        return self.values.to(self.device, non_blocking=True)

    def window(self, start: int, stop: int) -> Tensor:
        """Columns start to stop of a tensor [B, D], on the device."""
        return self.values[:, start:stop].to(self.device, non_blocking=True)


class SavedActivations:
    """Keeps up to `allowance` bytes of what autograd saves in a forward pass in memory, and offloads the others.

    own: storages that are not counted, as they exist anyway (weights, the image). A tensor that several operations save is
    stored once.
    """

    def __init__(self, offload: Offload, allowance: int | None, own: set[int]) -> None:
        self.offload, self.allowance, self.own = offload, allowance, own
        self.held = self.moved = 0
        self._known: dict[tuple[Any, ...], tuple[weakref.ref[Any], Any]] = {}

    def hooks(self) -> AbstractContextManager[None]:
        """The context of a forward pass whose saved tensors this object keeps."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def _pack(self, tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        if self.allowance is None or tensor.nbytes < SMALLEST or storage.data_ptr() in self.own:
            return SavedTensor.of(tensor)
        key = (storage._cdata, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor._version, tensor.dtype)
        known = self._known.get(key)
        if known is not None and known[0]() is not None:
            return SavedTensor.of(tensor) if known[1] is None else known[1]
        stored = None
        if self.held + tensor.nbytes <= self.allowance:
            self.held += tensor.nbytes
        else:
            self.moved += tensor.nbytes
            stored = self.offload.put(tensor)
        self._known[key] = (weakref.ref(storage), stored)
        return SavedTensor.of(tensor) if stored is None else stored


def _unpack(packed: SavedTensor | StoredFile | StoredHost) -> Tensor:
    return packed.get()


@cache
def _trim() -> Callable[[int], int] | None:
    """The C library's malloc_trim, where it has one."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
    return trim


def return_freed_memory() -> None:
    """Return freed blocks to the system; glibc keeps those of up to 32 MiB in the process."""
    trim = _trim()
    if trim is not None:
        trim(0)


PIECE = 2**24  # elements copied at a time where a tensor is not contiguous


def _pieces(tensor: Tensor) -> list[Tensor]:
    """The tensor's elements in row-major order as contiguous pieces."""
    if tensor.is_contiguous():
        return [tensor]
    if tensor.numel() <= PIECE or tensor.shape[0] == 1:
        return [tensor.contiguous()]
    return [tensor[i].contiguous() for i in range(tensor.shape[0])]


def _bytes_of(tensor: Tensor) -> Any:
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _read_into(file: Any, tensor: Tensor) -> None:
    view = _bytes_of(tensor)
    done = 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise IFIMError(
                f"{file.name}: a temporary file of this computation was truncated: let nothing clean up TMPDIR while it runs."
            )
        done += count
