"""The base of what looks at every operation of PyTorch inside a context."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A dispatch mode that does not import PyTorch's compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """PyTorch's question; with True it would import its compiler here, which takes seconds."""
        return False
