"""Peak memory of the tensors made inside a context; buffers inside kernels are not counted."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from monai_ifim.core.dispatch import Dispatch


class LiveMemory(Dispatch):
    """Context that counts the bytes of storages made inside it; `peak`: most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: dict[int, weakref.ref[Any]] = {}
        self.current = self.peak = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, then count the storages of its results that are not those of its inputs."""
        known = {_storage_key(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and _storage_key(value) not in known:
                self._count(value)
        return result

    def _count(self, tensor: Tensor) -> None:
        key = _storage_key(tensor)
        if key in self.alive:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()

        def forget(_: Any) -> None:
            self.current -= size
            del self.alive[key]

        self.alive[key] = weakref.ref(storage, forget)
        self.current += size
        self.peak = max(self.peak, self.current)


def storages_of(network: Any, image: Tensor) -> set[int]:
    """Addresses of the storages of weights, buffers and the image."""
    state = [*network.parameters(), *network.buffers()] if isinstance(network, torch.nn.Module) else []
    return {tensor.untyped_storage().data_ptr() for tensor in [*state, image]}


def _storage_key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
