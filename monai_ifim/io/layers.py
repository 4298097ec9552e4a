"""The maps of a case as they are cut into planes and thinned into stacks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Layer:
    """A map to be cut or thinned: values [*spatial], 2D or 3D, and their window; times `scale` they are in `unit`.

    component: of an eigenvector.
    """

    kind: str
    values: npt.NDArray[Any] = field(repr=False)
    window: tuple[float, float]
    unit: str
    scale: float = 1.0
    component: int | None = None
