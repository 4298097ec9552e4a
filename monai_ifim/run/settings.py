"""How to run: which case settings, where to write, on which device."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from monai_ifim.adapt.head_reading.result import HeadReading
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import IFIMError
from monai_ifim.io.limits import Limits


@dataclass(frozen=True)
class RunSettings:
    """How to run. output: folder for the results; case: how each case is made; batch_size: images that share backward passes.

    overwrite: make cases again that an earlier run finished. limits: on each case. private: close OUT to everybody but its owner.
    head_source: where the head comes from; None until the bundle was asked (`with_head`).
    Raises IFIMError for an invalid device or batch size.
    """

    output: Path
    case: CaseSettings = field(default_factory=CaseSettings)
    batch_size: int = 1
    device: str = "cpu"
    overwrite: bool = False
    limits: Limits = field(default_factory=Limits)
    private: bool = False
    head_source: str | None = None

    def __post_init__(self) -> None:
        check_device(self.device)
        if self.batch_size < 1:
            raise IFIMError(f"batch size {self.batch_size}: give a whole number from 1 on.")


def with_head(settings: RunSettings, reading: HeadReading) -> RunSettings:
    """The settings with the head that a bundle asks for where they leave it open; the same once this was done.

    Raises HeadError, with the cure, where the bundle does not say which head that is.
    """
    if settings.head_source is not None:
        return settings
    asked = settings.case.head
    case = replace(settings.case, head=reading.chosen(asked))
    return replace(settings, case=case, head_source=reading.source(asked))


def check_device(device: str) -> None:
    """Raise IFIMError if `device` cannot be used."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise IFIMError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}): try 'cpu' or 'cuda'.") from error
