"""Base class of contexts that intercept every PyTorch operation."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that does not import PyTorch's compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Asked by PyTorch; with True it would import its compiler, which takes seconds."""
        return False
