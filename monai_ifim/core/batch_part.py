"""Some images of a batch, with the network and the settings for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from torch import Tensor

from monai_ifim.core.answer import AnswerFacts
from monai_ifim.core.operator.precision import autocast
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.first_products import FirstProducts
from monai_ifim.core.solvers.watch import Watch
from monai_ifim.core.verification.batch import BatchVerification


@dataclass(frozen=True)
class BatchPart:
    """Some images of a batch, with the network and settings for them.

    asked: the settings as given; settings: the same with the metric bound to these images. advance: see `Jacobian`. watch:
    follows the iteration of the matrix-free method.
    first: number of the first of these images in the batch. verification: of the batch. facts: what is known of these images
    besides their values. trial: makes the first products only, in place of a solver.
    """

    predictor: Predictor
    image: Tensor
    asked: Settings
    settings: Settings
    advance: Callable[[int, int | None], None]
    verification: BatchVerification
    facts: AnswerFacts
    watch: Watch
    first: int = 0
    trial: FirstProducts | None = None

    def part(self, items: slice) -> BatchPart:
        """Some of these images."""
        metric = self.settings.input_metric
        settings = self.settings if metric is None else replace(self.settings, metric=metric.part(items))
        predictor, first = self.predictor.part(items), self.first + (items.start or 0)
        facts = self.facts.part(items)
        return replace(self, predictor=predictor, image=self.image[items], settings=settings, facts=facts, first=first)

    def passes(self) -> AbstractContextManager[object]:
        """The context that a forward pass runs in."""
        return autocast(self.settings.precision, self.image.device)

    def forward(self, image: Tensor) -> Tensor:
        """Output [B, *output] in the chosen precision."""
        with self.passes():
            return self.predictor(image)
