"""One call of a block of a network whose activations are recomputed, in the backward pass, instead of saved.

`torch.utils.checkpoint` runs a block again with the arguments as they are then, and compares no values. Here the block gets
copies of its arguments as they were: networks write into tensors (an activation in place, `x += y`) and into lists
(`x[i] = branch(x[i])`). Its output is compared with the first one, and a tensor that was overwritten after it was saved is
refused, as by autograd.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from monai_ifim.core.errors import IFIMError, NetworkError
from monai_ifim.core.memory.replaced_forward import chosen_forms, current_forms
from monai_ifim.core.memory.saved_tensor import SavedTensor
from monai_ifim.core.memory.stepped_attention import STEPPED_ATTENTION

SAMPLES, SAVED_SAMPLES = 2**12, 2**8  # elements of an output, and of a saved tensor, that are compared
TOLERANCE = 0.5  # power of the machine epsilon by which a repeated output may differ, relative to its largest element


class RecomputedCall:
    """One call of `forward`; path: called for the name of the block in errors."""

    def __init__(self, forward: Callable[..., Any], path: Callable[[], str]) -> None:
        self._forward, self._path = forward, path
        self._forms, self._surroundings = current_forms(), _Surroundings()
        self._places: list[weakref.ref[_Place]] = []
        self._values: dict[int, SavedTensor] = {}
        self._first: list[_Sample] | None = None
        self._compared = False

    def run(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Output of the block; saves copies of the tensors among its arguments and nothing else."""
        leaves, self._structure = tree_flatten((list(args), kwargs))
        tensors = list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())
        if len({tensor.untyped_storage()._cdata for tensor in tensors}) < len(tensors):
            return self._forward(*args, **kwargs)  # copies would not share memory as these tensors do
        places = {id(tensor): i for i, tensor in enumerate(tensors)}
        self._leaves = [_Argument(places[id(leaf)]) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._differentiated = [tensor.requires_grad for tensor in tensors]
        with torch.no_grad():
            copies = [tensor.detach().clone() for tensor in tensors]
        self._kept = _Keep.apply(torch.empty(0, requires_grad=True), *copies).grad_fn  # type: ignore[no-untyped-call]
        versions = [_version(tensor) for tensor in tensors]
        del leaves, copies
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            output = self._forward(*args, **kwargs)
        self._written = [_version(tensor) != version for tensor, version in zip(tensors, versions, strict=True)]
        self._first = _samples(output)
        return output

    def _pack(self, tensor: Tensor) -> _Place:
        place = _Place(len(self._places), _Sample(tensor))
        self._places.append(weakref.ref(place))
        return place

    def _unpack(self, place: _Place) -> Tensor:
        if place.number not in self._values:
            self._recompute()
        saved = self._values.pop(place.number, None)
        if saved is None:
            raise self._refusal()
        return saved.get()

    def _recompute(self) -> None:
        alive = [reference() for reference in self._places]
        last = max((i for i, place in enumerate(alive) if place is not None), default=-1)
        values: dict[int, SavedTensor] = {}
        count = 0

        def pack(tensor: Tensor) -> None:
            nonlocal count
            place = alive[count] if count < len(alive) else None
            if place is not None:
                if not self._compared and not place.sample.agrees(_Sample(tensor)):
                    raise self._refusal()
                values[count] = SavedTensor.of(tensor)
            count += 1
            if count > last and self._compared:
                raise _EnoughError

        with ExitStack() as stack:
            stack.enter_context(suppress(_EnoughError))
            stack.enter_context(chosen_forms(self._forms))  # this may be a thread of autograd's
            stack.enter_context(self._surroundings.again())
            stack.enter_context(torch.enable_grad())
            args, kwargs = self._arguments()
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, _refuse))
            output = self._repeated(args, kwargs)
            if not self._compared and (count != len(alive) or not _agree(self._first, _samples(output))):
                raise self._refusal()
        for saved in values.values():
            saved.get()
        self._values, self._compared = values, True

    def _repeated(self, args: Any, kwargs: Any) -> Any:
        try:
            return self._forward(*args, **kwargs)
        except (IFIMError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise self._refusal() from error

    def _arguments(self) -> Any:
        """The arguments as they were, in new lists and dictionaries."""
        tensors: list[Tensor] = []
        for copy, written, differentiated in zip(self._kept.saved_tensors, self._written, self._differentiated, strict=True):
            tensor = copy.detach().requires_grad_(differentiated)
            tensors.append(tensor.clone() if written else tensor)
        leaves = [tensors[leaf.number] if isinstance(leaf, _Argument) else leaf for leaf in self._leaves]
        return tree_unflatten(leaves, self._structure)

    def _refusal(self) -> NetworkError:
        return NetworkError(
            f"block '{self._path()}' gives another output when it is computed again, as this memory_budget asks: its forward() "
            "is random, or depends on something that passes change. Leave memory_budget out or raise it, so that no block is "
            "recomputed, or make forward() a function of its arguments."
        )


class _Place:
    """Stands in the graph for a tensor that is recomputed; it dies with the part of the graph that needs it."""

    def __init__(self, number: int, sample: _Sample) -> None:
        self.number, self.sample = number, sample


class _Argument:
    """Stands for a tensor among the arguments."""

    def __init__(self, number: int) -> None:
        self.number = number


class _EnoughError(BaseException):
    """Ends a repeated forward pass once everything that the graph needs is there; no `except Exception` catches it."""


class _Keep(torch.autograd.Function):
    """Saves tensors as an operation of the graph does, so that they can be offloaded like those."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, ...]:
        raise RuntimeError("nothing is differentiated here")


class _Surroundings:
    """Autocast and kernels of attention in the first pass."""

    def __init__(self) -> None:
        kinds = {"cpu", getattr(torch.accelerator.current_accelerator(), "type", "cpu")}
        self._autocast = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
            for kind in sorted(kinds)
            if torch.amp.autocast_mode.is_autocast_available(kind)
        ]
        self._cached = torch.is_autocast_cache_enabled()
        self._stepped = STEPPED_ATTENTION.on

    @contextmanager
    def again(self) -> Iterator[None]:
        """Context with the same."""
        with ExitStack() as stack:
            for kind, dtype, enabled in self._autocast:
                stack.enter_context(torch.autocast(kind, dtype, enabled, self._cached))
            if self._stepped:
                stack.enter_context(STEPPED_ATTENTION.held())
            yield


class _Sample:
    """Some elements of a tensor, and its norm if asked for; of numbers without fractions, which flip at ties, the kind only."""

    def __init__(self, tensor: Tensor, largest: int = SAVED_SAMPLES, norm: bool = False) -> None:
        plain = tensor.detach().as_subclass(Tensor)
        self.kind = (plain.shape, plain.dtype)
        if not plain.is_floating_point() or plain.layout != torch.strided:
            plain = plain.new_empty(0, dtype=torch.float32, layout=torch.strided)
        flat = plain.reshape(-1) if plain.is_contiguous() else plain.permute(_order(plain)).reshape(-1)
        self.values = flat[:: max(1, flat.numel() // largest)].clone()
        self.norm = torch.linalg.vector_norm(plain) if norm else plain.new_zeros(())

    def agrees(self, other: _Sample) -> bool:
        """True if both are the same to rounding."""
        if self.kind != other.kind:
            return False
        first, second = (torch.cat([sample.values, sample.norm.to(sample.values).reshape(1)]) for sample in (self, other))
        relative = torch.finfo(first.dtype).eps ** TOLERANCE
        size = torch.nan_to_num(first[:-1].abs(), posinf=0.0).amax() if first.numel() > 1 else 0.0
        close = torch.isclose(first[:-1], second[:-1], rtol=0.0, atol=relative * float(size), equal_nan=True)
        return bool(close.all()) and bool(torch.isclose(first[-1], second[-1], rtol=relative, atol=0.0, equal_nan=True))


def _samples(output: Any) -> list[_Sample]:
    """Samples of the tensors in an output, also of those that are attributes of objects in it."""
    leaves = tree_leaves(output)
    leaves = leaves + [
        part for leaf in leaves if not isinstance(leaf, Tensor) for part in tree_leaves(getattr(leaf, "__dict__", {}))
    ]
    return [_Sample(leaf, SAMPLES, norm=True) for leaf in leaves if isinstance(leaf, Tensor)]


def _agree(first: list[_Sample] | None, second: list[_Sample]) -> bool:
    return first is not None and len(first) == len(second) and all(a.agrees(b) for a, b in zip(first, second, strict=True))


def _version(tensor: Tensor) -> int:
    """PyTorch's count of the writes to a tensor; it counts none for those made in inference mode."""
    return 0 if tensor.is_inference() else int(tensor._version)


def _order(tensor: Tensor) -> list[int]:
    """Axes by decreasing stride: the order of the elements in memory."""
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def _refuse(_: Any) -> Tensor:
    raise RuntimeError("a graph that only serves to recompute tensors cannot be differentiated")
