"""The network as a function of its image, within a limit on the number of its passes."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from monai_ifim.core.operator.predictor import Predictor


class PassesUsedUpError(Exception):
    """A check has made as many passes as it may."""


@dataclass
class Limit:
    """most: number of images after which none goes through any more; None for no limit. passes: images that went through."""

    most: float | None = None
    passes: int = 0


@dataclass(frozen=True)
class LimitedPredictor(Predictor):
    """A predictor that counts its passes; raises PassesUsedUpError instead of one beyond the limit."""

    limit: Limit = field(default_factory=Limit)

    def __call__(self, image: Tensor, items: slice | Tensor = slice(None)) -> Tensor:
        """See `Predictor`."""
        if self.limit.most is not None and self.limit.passes + image.shape[0] > self.limit.most:
            raise PassesUsedUpError
        self.limit.passes += image.shape[0]
        return super().__call__(image, items)
