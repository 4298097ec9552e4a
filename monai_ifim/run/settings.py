"""How to run: what is decomposed with which options, what is written and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from monai_ifim.adapt.options import DecomposeOptions
from monai_ifim.adapt.saving import Space, check_space
from monai_ifim.adapt.scanner.equivalents import Statistics
from monai_ifim.adapt.scanner.preprocessing import check_statistics
from monai_ifim.adapt.scanner.resolution import Resolution, check_metrics, checked_resolution
from monai_ifim.core import IFIMError
from monai_ifim.io import CONTENTS, OutputError, atomic, check_contents


@dataclass(frozen=True)
class RunSettings:
    """How to run: options of the decomposition, what to write and where. batch_size: images that share backward passes.

    dicom_pm, scene_bundle: as `SaveIFIM`. statistics, resolution: in scanner space, as `monai_ifim.decompose_scan`.
    deterministic: as `core.determinism.deterministic_algorithms`, while cases are made.
    """

    output: Path
    options: DecomposeOptions
    space: Space = "native"
    contents: tuple[str, ...] = CONTENTS
    batch_size: int = 1
    device: str = "cpu"
    overwrite: bool = False
    dicom_pm: bool = False
    scene_bundle: bool = False
    statistics: Statistics = "differentiate"
    resolution: Resolution = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_contents(self.contents)
        check_space(self.space)
        check_device(self.device)
        check_statistics(self.statistics)
        object.__setattr__(self, "resolution", checked_resolution(self.resolution))
        check_metrics(self.resolution, self.options)
        if self.space != "scanner" and (self.resolution is not None or self.statistics != "differentiate"):
            raise IFIMError(f"statistics and resolution belong to the space 'scanner', not to {self.space!r}: leave them out.")
        if self.batch_size < 1:
            raise IFIMError(f"batch size {self.batch_size}: give a whole number from 1 on.")


def check_device(device: str) -> None:
    """Raise IFIMError where nothing can be computed on `device`."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise IFIMError(f"device {device!r} cannot be used ({str(error).splitlines()[0]}): try 'cpu' or 'cuda'.") from error


def prepared_folder(output: Path) -> Path:
    """The folder for results, made where missing and rid of what killed runs left half-written in it.

    What others are writing into it now stays. Raises OutputError where it cannot be made or written.
    """
    doing = "made"
    try:
        output.mkdir(parents=True, exist_ok=True)
        doing = "written"
        atomic.remove_partial_below(output)
        atomic.check_folder(output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be {doing} ({error.strerror}): choose another --output.") from error
    return output
