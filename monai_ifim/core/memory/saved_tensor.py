"""A tensor that is kept for the backward pass outside of autograd, which then no longer notices that it was overwritten."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class SavedTensor:
    """A tensor as it was saved; version: PyTorch's count of the writes to it at that time."""

    values: Tensor
    version: int

    @classmethod
    def of(cls, tensor: Tensor) -> SavedTensor:
        """The tensor as it is now, without its graph, which would hold it in a cycle."""
        return cls(tensor.detach(), tensor._version)

    def get(self) -> Tensor:
        """The tensor; raises RuntimeError, in autograd's words, if it was written to since."""
        if self.values._version != self.version:
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an inplace operation: a tensor of "
                f"shape {tuple(self.values.shape)} is at version {self.values._version}; expected version {self.version} instead"
            )
        return self.values
