"""Verification of the images of one batch that are due."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from monai_ifim.core.operator.moved_image import MovedImage
from monai_ifim.core.operator.predictor import Predictor
from monai_ifim.core.settings import Settings
from monai_ifim.core.verification.causes import likely_causes
from monai_ifim.core.verification.comparison import Verification, verify_image
from monai_ifim.core.verification.record import described, warn_of_disagreement
from monai_ifim.core.verification.schedule import SCHEDULE
from monai_ifim.core.verification.trial import Expectation


@dataclass
class BatchVerification:
    """Verification of a batch.

    network: that the schedule counts the images of; kind: their shape and settings. images: numbers of those to verify, in the
    batch. seed: of the random directions, the same for all images. found: outcomes so far.
    """

    network: Callable[..., Any]
    kind: Hashable
    images: Sequence[int]
    names: Sequence[str]
    seed: int
    changes: Callable[[], Sequence[str]]
    found: dict[int, Verification] = field(default_factory=dict)

    @classmethod
    def planned(
        cls, predictor: Predictor, image: Tensor, settings: Settings, names: Sequence[str], changes: Callable[[], Sequence[str]]
    ) -> BatchVerification:
        """The verification of a batch [B, channel, *spatial] by the schedule of this process; names: of its images."""
        network = getattr(predictor.bare, "ends_in", predictor.bare)
        autocast = torch.is_autocast_enabled(image.device.type)
        form = (tuple(image.shape[1:]), image.dtype, image.device.type)
        kind: Hashable = (type(predictor.bare), form, autocast, _setting(settings), _hooks(predictor.bare), _switches(predictor))
        images, start = SCHEDULE.next_images(network, kind, image.shape[0], settings.verify)
        names = tuple(names) or tuple(f"image {start + number}" for number in range(image.shape[0]))
        return cls(network, kind, images, names, settings.seed, changes)

    def due(self, first: int, count: int) -> list[int]:
        """Images to verify among `count` from number `first` on, counted from there."""
        return [number - first for number in self.images if first <= number < first + count]

    def verify(self, number: int, moved: MovedImage, expectations: Sequence[Callable[[], Expectation]], row_eps: float) -> None:
        """Verify one image; raises NetworkError as `verify_image`."""
        self.found[number] = verify_image(moved, expectations, row_eps, self.changes)

    def finish(self, forward: Callable[[Tensor], Tensor], image: Tensor) -> dict[str, Any]:
        """The record of the batch; warns of a disagreement. forward: the network at images [B, channel, *spatial]: image."""
        wrong = [number for number, one in self.found.items() if one.outcome == "disagrees"]
        if wrong:
            causes = likely_causes(self.network, forward, image)
            self.found |= {number: replace(self.found[number], reason=self.found[number].reason or causes) for number in wrong}
            warn_of_disagreement(self.found, self.names)
        record, latest = described(self.found, self.names, SCHEDULE.latest(self.network, self.kind))
        if self.found and latest is not None:
            SCHEDULE.keep(self.network, self.kind, latest)
        return record


def _hooks(network: Callable[..., Any]) -> int:
    """Number of hooks of all modules: one that is left on after the first image makes another network of it."""
    if not isinstance(network, nn.Module):
        return 0
    kinds = ("_backward_hooks", "_backward_pre_hooks", "_forward_hooks", "_forward_pre_hooks")
    return sum(len(module.__dict__[kind]) for module in network.modules() for kind in kinds if module.__dict__.get(kind))


def _switches(predictor: Predictor) -> tuple[Hashable, ...]:
    """What the further arguments may choose a path of the network by: which are given, names, and switches on or off."""
    given = [*enumerate(predictor.args), *sorted(predictor.kwargs.items())]
    return tuple((name, value if isinstance(value, (bool, str)) else type(value).__name__) for name, value in given)


def _setting(settings: Settings) -> str:
    """The settings that decide how the network is differentiated, and what it is asked."""
    return repr({name: value for name, value in settings.describe().items() if name not in ("locality", "verify")})
