"""The network as a function of its image, within a limit on the time that its passes take."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from monai_ifim.core.operator.predictor import Predictor


class TimeUsedUpError(Exception):
    """The passes of a check have taken as long as they may."""


@dataclass
class Limit:
    """deadline: time by `time.monotonic` after which no pass is begun; None for no limit. passes: images that went through."""

    deadline: float | None = None
    passes: int = 0


@dataclass(frozen=True)
class LimitedPredictor(Predictor):
    """A predictor that counts its passes; raises TimeUsedUpError instead of a pass after the deadline."""

    limit: Limit = field(default_factory=Limit)

    def __call__(self, image: Tensor, items: slice | Tensor = slice(None)) -> Tensor:
        """See `Predictor`."""
        if self.limit.deadline is not None and time.monotonic() > self.limit.deadline:
            raise TimeUsedUpError
        self.limit.passes += image.shape[0]
        return super().__call__(image, items)
