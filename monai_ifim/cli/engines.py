"""Chooses the engine that runs the cases: this process, the processes of torchrun, or workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from monai_ifim.adapt.head_reading.result import HeadReading
    from monai_ifim.cli.progress import CaseReport
    from monai_ifim.run.cases import Case
    from monai_ifim.run.ranks import Rank
    from monai_ifim.run.settings import RunSettings
    from monai_ifim.run.stop_request import StopRequest
    from monai_ifim.run.table import CaseRow

    Run = Callable[[Sequence[Case], CaseReport, StopRequest], list[CaseRow]]


class Engine(StrEnum):
    """Values of --engine."""

    LOCAL = "local"
    RAY = "ray"


def chosen_engine(engine: Engine, workers: int | None, rank: Rank, root: Path, settings: RunSettings) -> tuple[Run, HeadReading]:
    """The engine as a function of cases, report and stop request, and the head that the bundle asks for; raises IFIMError for
    contradicting options."""
    from monai_ifim.core.errors import IFIMError

    if engine is Engine.RAY:
        if rank.size > 1:
            raise IFIMError("torchrun and --engine ray both start processes: use one of them.")
        from monai_ifim.adapt.head_reading.reading import read_head
        from monai_ifim.io import identify_bundle
        from monai_ifim.run.cluster.driver import run_on_ray

        reading = read_head(root)  # the workers look at the network too
        identity = identify_bundle(root)
        return (
            lambda cases, report, stop: run_on_ray(root, identity, cases, settings, report, workers, stop, report.activity)
        ), reading
    if workers is not None:
        raise IFIMError(
            "--workers counts the workers of Ray, and the local engine is one process: add --engine ray, or, without Ray, start "
            f"the processes by torchrun --nproc_per_node={workers} --no-python monai-ifim decompose ... without --workers."
        )
    from monai_ifim.adapt.bundle import load_bundle

    bundle = load_bundle(root, settings.device)
    if rank.size > 1:
        from monai_ifim.run.ranks import run_shard

        return (lambda cases, report, stop: run_shard(bundle, cases, settings, report, rank, stop, report.activity)), bundle.head
    from monai_ifim.run.local import run_cases

    return (lambda cases, report, stop: run_cases(bundle, cases, settings, report, stop, report.activity)), bundle.head
