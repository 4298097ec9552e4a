"""The coarsest precision that a network itself converts values to: by autocast in its forward(), `.half()`, `.float()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.dispatch import Dispatch


class InnerPrecision(Dispatch):  # type: ignore[no-untyped-call]
    """Context of passes; eps: machine epsilon of the coarsest dtype that a wider one was converted to inside, 0 without any."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.eps = 0.0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation."""
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default:
            self._note(args[0], result)
        elif func is torch.ops.aten.copy_.default:
            self._note(args[1], args[0])
        return result

    def _note(self, before: Any, after: Any) -> None:
        if all(isinstance(value, Tensor) and value.is_floating_point() for value in (before, after)):
            now, then = torch.finfo(after.dtype).eps, torch.finfo(before.dtype).eps
            self.eps = max(self.eps, now if now > then else 0.0)
