"""Where the rows of a decomposition are kept: in memory, side by side in slabs, or offloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from monai_ifim.core.memory.offload import SMALLEST, Offload

SLAB, SLAB_ROWS = 2**26, 64  # most bytes and most rows of one slab


class Row(Protocol):
    """One row of each image of the batch, in memory or offloaded."""

    def window(self, start: int, stop: int) -> Tensor:
        """Elements start to stop, [B, stop - start], on the device of the computation."""
        ...


@dataclass(frozen=True)
class HeldRow:
    """A row in memory; values: [B, D]."""

    values: Tensor

    def window(self, start: int, stop: int) -> Tensor:
        """See `Row`."""
        return self.values[:, start:stop]


class RowShelf:
    """Stores rows: up to `allowance` bytes in memory (None: all of them), the others offloaded.

    On the CPU rows are put into slabs. Allocated one by one among the short-lived tensors of the passes, they would keep the C
    library from returning the memory between them. The unused part of a slab takes no memory.
    """

    def __init__(self, offload: Offload, allowance: int | None) -> None:
        self.offload, self.allowance = offload, allowance
        self.held = 0
        self._free: list[Tensor] = []

    def shelve(self, row: Tensor) -> Row:
        """Store the row [B, D]."""
        if self.allowance is not None and self.held + row.nbytes > self.allowance:
            return self.offload.put(row)
        self.held += row.nbytes
        if row.device.type != "cpu" or not SMALLEST <= row.nbytes <= SLAB // 2:
            return HeldRow(row)
        if not self._free:
            self._free = list(row.new_empty(min(SLAB_ROWS, SLAB // row.nbytes), *row.shape).unbind(0))
        return HeldRow(self._free.pop(0).copy_(row))
