"""Runs an experiment: every task with every model, into one results.json and tables of all measurements."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pandas as pd  # type: ignore[import-untyped, unused-ignore]
import torch
import yaml  # type: ignore[import-untyped, unused-ignore]
from monai.bundle import ConfigParser

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.analysis.summary import summarise_cell, summarise_experiment
from monai_ifim.evaluation.classifiers.models import Model
from monai_ifim.evaluation.classifiers.recipes import protect_recipes
from monai_ifim.evaluation.classifiers.tasks import Task
from monai_ifim.evaluation.measuring.cells import Cell, CellResult, run_cell
from monai_ifim.evaluation.measuring.observation import ObservationSettings
from monai_ifim.evaluation.measuring.perturbations import PerturbationSettings
from monai_ifim.evaluation.records import CellRecord, Estimate, ExperimentHeader, ExperimentRecord, FailedCell, write_experiment
from monai_ifim.io.atomic import write_bytes, write_text
from monai_ifim.io.errors import innermost, reason_of
from monai_ifim.io.sidecar import versions

__all__ = ["Experiment", "ProgressListener", "load_experiment", "only", "parse_overrides", "run_experiment"]

RESAMPLES = 1999  # of the bootstrap: enough for 95 % limits


@dataclass(frozen=True)
class Experiment:
    """Tasks and models to evaluate. images: number per cell, the classes in turn. seed: of all random draws except trainings.

    resamples: of the bootstrap. Raises IFIMError if there is no task or model, or two of them share a name.
    """

    name: str
    tasks: tuple[Task, ...]
    models: tuple[Model, ...]
    observation: ObservationSettings
    images: int = 36
    seed: int = 0
    resamples: int = RESAMPLES

    def __post_init__(self) -> None:
        for kind, names in (("task", [t.name for t in self.tasks]), ("model", [m.name for m in self.models])):
            if not names:
                raise IFIMError(f"experiment {self.name!r} has no {kind}: name one at least.")
            if len(set(names)) < len(names):
                raise IFIMError(f"experiment {self.name!r} has two {kind}s of one name among {names}: rename one.")
        if self.images < 1 or self.seed < 0 or self.resamples < 99:
            raise IFIMError(
                f"images {self.images}, seed {self.seed}, resamples {self.resamples}: give at least 1, 0 and 99 (whole numbers)."
            )


class ProgressListener(Protocol):
    """Receives the progress of an experiment."""

    def cell(self, name: str, done: int, total: int) -> None:
        """A cell begins; `done` of `total` are finished."""

    def advance(self, stage: str, done: int, total: int) -> None:
        """Inside the cell: "training" (epochs) or "images"."""

    def failed(self, name: str, reason: str) -> None:
        """A cell failed; the others go on."""


class _Silent:
    """Ignores progress."""

    def cell(self, name: str, done: int, total: int) -> None:
        return None

    def advance(self, stage: str, done: int, total: int) -> None:
        return None

    def failed(self, name: str, reason: str) -> None:
        return None


def load_experiment(config: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Load an experiment from a MONAI-style YAML or JSON file. Such a file can run code: load only files that you trust.

    overrides: values by MONAI's names of config entries ("images", "tasks#0#seed"), as in `monai.bundle run`.
    Raises IFIMError naming the faulty entry.
    """
    parser = ConfigParser()
    try:
        parser.read_config(str(config))
        for name, value in (overrides or {}).items():
            parser[name] = value
        parser.set(protect_recipes(parser.get()))
        content = {name: parser.get_parsed_content(name) for name in parser.get() if name in _ENTRIES}
    except IFIMError:
        raise
    except Exception as error:
        cause = innermost(error)
        raise IFIMError(f"{config.name}: cannot be read as an experiment ({cause}).") from error
    missing = [name for name in ("tasks", "models") if name not in content]
    if missing:
        raise IFIMError(f"{config.name}: no {' and no '.join(missing)}; see configs/evaluation/ for examples.")
    return Experiment(
        name=str(content.get("name", config.stem)),
        tasks=tuple(content["tasks"]),
        models=tuple(content["models"]),
        observation=ObservationSettings(
            PerturbationSettings(**content.get("perturbations", {})), **content.get("decomposition", {})
        ),
        **{name: content[name] for name in ("images", "seed", "resamples") if name in content},
    )


_ENTRIES = ("name", "tasks", "models", "perturbations", "decomposition", "images", "seed", "resamples")


def run_experiment(
    experiment: Experiment,
    output: Path,
    cache: Path,
    listener: ProgressListener | None = None,
    command: str = "",
    device: str = "cpu",
) -> ExperimentRecord:
    """Run every cell, summarise, and write results.json and tables into `output`; returns the record of results.json.

    A cell that fails is listed with its reason while the others go on. An interrupted run continues: `cache` keeps weights and
    unfinished trainings, `output` the images already observed.
    """
    began = time.perf_counter()
    listener = listener or _Silent()
    cells = [Cell(task, model, output) for task in experiment.tasks for model in experiment.models]
    results: list[CellResult] = []
    records: list[CellRecord] = []
    failed: list[FailedCell] = []
    for done, cell in enumerate(cells):
        listener.cell(cell.name, done, len(cells))
        try:
            result = run_cell(cell, experiment.observation, experiment.images, experiment.seed, cache, device, listener.advance)
            records.append(
                summarise_cell(result.measurements, result.images, result.description, experiment.seed, experiment.resamples)
            )
            results.append(result)
        except Exception as error:  # one cell's failure is recorded and the others go on
            reason = reason_of(error)
            failed.append(FailedCell(cell.task.name, cell.model.name, reason))
            listener.failed(cell.name, reason)
    listener.cell("summary", len(cells), len(cells))
    record = summarise_experiment(records, _header(experiment, command, device, time.perf_counter() - began), failed)
    _write(output, results, record)
    return record


def _header(experiment: Experiment, command: str, device: str, seconds: float) -> ExperimentHeader:
    observation = asdict(experiment.observation)
    return ExperimentHeader(
        name=experiment.name,
        seed=experiment.seed,
        command=command,
        settings={"images": experiment.images, "resamples": experiment.resamples, **observation},
        environment={"versions": versions(), "device": device, "threads": torch.get_num_threads()},
        seconds=seconds,
        relative_norms=experiment.observation.perturbations.relative_norms,
        tasks=tuple(_described(task) for task in experiment.tasks),
        models=tuple(model.describe() for model in experiment.models),
    )


def _described(task: Task) -> dict[str, Any]:
    """The task's description; only its name and title if its files are missing, because its failed cells give the reason."""
    titles = {"name": task.name, "title": task.title, "note": task.note}
    try:
        return {**titles, **task.describe()}
    except (IFIMError, OSError):
        return titles


def _write(output: Path, results: Sequence[CellResult], record: ExperimentRecord) -> None:
    """Tables first, so that a results.json always has them beside it."""
    if results:
        buffer = io.BytesIO()
        pd.concat([result.measurements for result in results], ignore_index=True).to_parquet(buffer, index=False)
        write_bytes(output / "measurements.parquet", buffer.getvalue(), root=output)
        images = pd.concat([result.images for result in results], ignore_index=True)
        write_text(output / "images.csv", images.to_csv(index=False), root=output)
        write_text(output / "comparisons.csv", _comparisons(record.cells).to_csv(index=False), root=output)
        write_text(output / "cells.csv", _cells(record.cells).to_csv(index=False), root=output)
        labels = _labels(record.cells)
        if len(labels):
            write_text(output / "labels.csv", labels.to_csv(index=False), root=output)
    write_experiment(output / "results.json", record)


def _comparisons(cells: Sequence[CellRecord]) -> pd.DataFrame:
    """One row per cell and comparison."""
    return pd.DataFrame(
        [{"task": cell.task, "architecture": cell.architecture, **asdict(row)} for cell in cells for row in cell.comparisons]
    )


def _cells(cells: Sequence[CellRecord]) -> pd.DataFrame:
    """One row per cell: the classifier's record and the means over images."""
    rows = []
    for cell in cells:
        means = {f"mean_{name}": scalar.value for name, scalar in cell.images_scalars.items()}
        place = {"task": cell.task, "architecture": cell.architecture, "images": cell.images}
        rows.append({**place, **cell.classifier, **means})
    return pd.DataFrame(rows)


def _labels(cells: Sequence[CellRecord]) -> pd.DataFrame:
    """One row per cell and independent label; each estimate with its limits."""
    rows = []
    for cell in cells:
        for label in cell.labels:
            row: dict[str, Any] = {"task": cell.task, "architecture": cell.architecture}
            for name, value in vars(label).items():
                row |= _with_limits(name, value) if isinstance(value, Estimate) else {name: value}
            rows.append(row)
    return pd.DataFrame(rows)


def _with_limits(name: str, value: Estimate) -> dict[str, Any]:
    return {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high, f"{name}_images": value.images}


def only(experiment: Experiment, tasks: Sequence[str] | None, models: Sequence[str] | None) -> Experiment:
    """The experiment with only the named tasks and models (None: all); raises IFIMError for an unknown name."""
    known = {"task": [task.name for task in experiment.tasks], "model": [model.name for model in experiment.models]}
    for kind, names in (("task", tasks), ("model", models)):
        unknown = set(names or []) - set(known[kind])
        if unknown:
            raise IFIMError(f"no {kind} {', '.join(sorted(unknown))} in this experiment: choose among {', '.join(known[kind])}.")
    return replace(
        experiment,
        tasks=tuple(task for task in experiment.tasks if not tasks or task.name in tasks),
        models=tuple(model for model in experiment.models if not models or model.name in models),
    )


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Parse ["images=12"] into {"images": 12}, values as YAML; raises IFIMError for anything but NAME=VALUE."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, separator, value = assignment.partition("=")
        if not separator or not name:
            raise IFIMError(f"--set {assignment}: write NAME=VALUE, such as images=12.")
        found[name] = yaml.safe_load(value)
    return found
