"""Where the rows of a decomposition are kept: in memory, side by side in slabs, or offloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from monai_ifim.core.memory.offload import SMALLEST, Overflow

SLAB, SLAB_ROWS = 2**26, 64  # most bytes and most rows of one slab


class Row(Protocol):
    """A row of every image of the batch, wherever it is kept."""

    def window(self, start: int, stop: int) -> Tensor:
        """[B, stop - start] on the device of the computation."""
        ...


@dataclass(frozen=True)
class HeldRow:
    """A row in memory; values: [B, D]."""

    values: Tensor

    def window(self, start: int, stop: int) -> Tensor:
        """See `Row`."""
        return self.values[:, start:stop]


class RowShelf:
    """Rows in memory up to a number of bytes (None: all), the others in the overflow.

    On the CPU rows lie side by side in slabs: one by one among the short-lived tensors of the passes, they would keep the C
    library from ever giving the memory between them back. What a slab has not been filled with takes no memory yet.
    """

    def __init__(self, overflow: Overflow, allowance: int | None) -> None:
        self.overflow, self.allowance = overflow, allowance
        self.held = 0
        self._free: list[Tensor] = []

    def shelve(self, row: Tensor) -> Row:
        """A place for the row [B, D]."""
        if self.allowance is not None and self.held + row.nbytes > self.allowance:
            return self.overflow.put(row)
        self.held += row.nbytes
        if row.device.type != "cpu" or not SMALLEST <= row.nbytes <= SLAB // 2:
            return HeldRow(row)
        if not self._free:
            self._free = list(row.new_empty(min(SLAB_ROWS, SLAB // row.nbytes), *row.shape).unbind(0))
        return HeldRow(self._free.pop(0).copy_(row))
