"""Values of many small tensors: copied together, compared together, given back one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

LARGEST = 2**26  # bytes of a tensor that is copied
DTYPES = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16}
DTYPES |= {torch.float32, torch.float64, torch.complex64, torch.complex128}  # those that can be joined on every device


class TensorValues:
    """The values that tensors had; all of one dtype and device are copied and compared at once, in few operations."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self._shapes = [tensor.shape for tensor in tensors]
        self._required_gradient = {i for i, tensor in enumerate(tensors) if tensor.requires_grad}
        groups: dict[object, list[int]] = defaultdict(list)
        for i, tensor in enumerate(tensors):
            groups[tensor.dtype, tensor.device, tensor.ndim == 0].append(i)
        self._groups = list(groups.values())
        with torch.no_grad():
            self._copies = [_joined([tensors[i] for i in group]) for group in self._groups]

    def changed(self) -> list[int]:
        """Numbers of the tensors whose values (to the last bit), shape, dtype or device are others now, or that have a graph."""
        found: list[int] = []
        with torch.no_grad():
            for group, copy in zip(self._groups, self._copies, strict=True):
                if not _equal([self.tensors[i] for i in group], copy):
                    found += [i for i, values in self._values(group, copy) if not self._same(i, values)]
        return found

    def give_back(self, i: int) -> None:
        """Write the values into the tensor again; where a pass tied it to its graph, it is untied."""
        tensor = self.tensors[i]
        values = next(
            v for group, copy in zip(self._groups, self._copies, strict=True) for k, v in self._values(group, copy) if k == i
        )
        with torch.no_grad():
            if tensor.requires_grad and i not in self._required_gradient:
                with suppress(RuntimeError):  # PyTorch unties no views
                    tensor.detach_()
            if (tensor.shape, tensor.dtype) == (values.shape, values.dtype):
                tensor.copy_(values)
            else:
                tensor.data = values.clone()

    def _values(self, group: list[int], copy: Tensor) -> list[tuple[int, Tensor]]:
        parts = torch.split(copy, [self._shapes[i].numel() for i in group])
        return [(i, part.reshape(self._shapes[i])) for i, part in zip(group, parts, strict=True)]

    def _same(self, i: int, values: Tensor) -> bool:
        tensor = _plain(self.tensors[i])
        kinds = [(each.shape, each.dtype, each.device) for each in (tensor, values)]
        if kinds[0] != kinds[1] or (tensor.requires_grad and i not in self._required_gradient):
            return False
        return torch.equal(_bytes(tensor), _bytes(values))


def copyable(tensor: Tensor) -> bool:
    """True if the values of a tensor are copied: it is dense, no parameter, and not as large as those can be."""
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.nbytes > LARGEST or tensor.is_meta:
        return False
    return type(tensor) is Tensor or not (isinstance(tensor, nn.Parameter) or is_traceable_wrapper_subclass(tensor))


def _joined(tensors: list[Tensor]) -> Tensor:
    """All values as one vector; tensors: all or none of them scalars."""
    plain = [_plain(tensor) for tensor in tensors]
    return torch.stack(plain) if plain[0].ndim == 0 else torch.cat([t if t.ndim == 1 else t.reshape(-1) for t in plain])


def _equal(tensors: list[Tensor], copy: Tensor) -> bool:
    try:
        return torch.equal(_joined(tensors), copy)
    except RuntimeError:  # a tensor has another shape, dtype or device now
        return False


def _plain(tensor: Tensor) -> Tensor:
    return tensor if type(tensor) is Tensor else tensor.as_subclass(Tensor)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)  # equal also for NaN
