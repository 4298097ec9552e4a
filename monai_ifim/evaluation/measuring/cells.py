"""Runs one cell of an experiment (a task with a model) and keeps each observed image on disk."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped, unused-ignore]
import torch
from torch import nn

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.labels import Label, class_texts, known_label
from monai_ifim.evaluation.classifiers.models import Model
from monai_ifim.evaluation.classifiers.tasks import Sample, Task, fingerprint
from monai_ifim.evaluation.measuring.answers import check_label
from monai_ifim.evaluation.measuring.examples import example_planes
from monai_ifim.evaluation.measuring.observation import Observation, ObservationSettings, Observer
from monai_ifim.evaluation.measuring.perturbations import draw_seed
from monai_ifim.evaluation.records import CellDescription, Example
from monai_ifim.io.atomic import remove_files, write_bytes, write_text
from monai_ifim.io.planes import write_planes

__all__ = ["Cell", "CellResult", "run_cell", "weights_sha256"]

EXAMPLES = 4  # images per cell that the page shows
FORMAT = 2  # of the files in a cell's folder; images kept in another format are observed again

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Cell:
    """A task with a model. output: folder of the experiment, in which the cell's measurements have a folder of their own."""

    task: Task
    model: Model
    output: Path

    @property
    def folder(self) -> Path:
        """For its measurements."""
        return self.output / "cells" / self.task.name / self.model.name

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.task.name} / {self.model.name}"


@dataclass(frozen=True, eq=False)
class CellResult:
    """measurements: one row per image, perturbation and norm. images: scalars, one row per image. description: of the cell."""

    measurements: pd.DataFrame
    images: pd.DataFrame
    description: CellDescription


def run_cell(
    cell: Cell, settings: ObservationSettings, images: int, seed: int, cache: Path, device: str, advance: Advance
) -> CellResult:
    """Train or load the classifier, then observe the images that no earlier run observed with the same settings.

    advance is called with the stage ("training", "images"), the number done and the total. Raises IFIMError if no image can be
    observed.
    """
    classifier = cell.model.classifier(cell.task, cache, lambda done, total: advance("training", done, total))
    samples, skipped = cell.task.chosen(images, seed)
    if not samples:
        raise IFIMError(f"{cell.name}: no test image can be read ({next(iter(skipped.values()), 'none is listed')}).")
    weights = [weights_sha256(network) for network in (classifier.network, classifier.twin, *classifier.siblings)]
    identity = {
        "format": FORMAT,
        "task": cell.task.describe(),
        "weights": weights,
        "head": classifier.head,
        "observation": asdict(settings),
        "seed": seed,
    }
    _keep_only(cell, fingerprint(identity))
    observer = Observer(
        classifier.network.to(device),
        classifier.twin.to(device),
        tuple(network.to(device) for network in classifier.siblings),
        classifier.head,
        settings,
        samples[0],
    )
    if observer.classes != len(cell.task.class_names):
        raise IFIMError(
            f"{cell.name}: the network tells {observer.classes} classes apart, and the task names {len(cell.task.class_names)}: "
            "give class_names in the order of the outputs."
        )
    for sample in samples:
        check_label(known_label(sample.label), observer.head, observer.outputs, f"{cell.name}, {sample.name}")
    for done, sample in enumerate(samples):
        advance("images", done, len(samples))
        if _is_kept(cell.folder, sample):
            continue
        try:
            observation = observer.observe(sample, image_seed(seed, cell.task.name, sample.name))
        except IFIMError as error:
            skipped[sample.name] = " ".join(str(error).split())
            continue
        _keep(cell, sample, observation)
    advance("images", len(samples), len(samples))
    kept = [sample for sample in samples if _is_kept(cell.folder, sample)]
    if not kept:
        raise IFIMError(f"{cell.name}: no image could be observed ({next(iter(skipped.values()))}).")
    tables, rows, missing = _read_kept(cell, kept)
    description = CellDescription(
        task=cell.task.name,
        architecture=cell.model.name,
        task_title=cell.task.title,
        task_note=cell.task.note,
        classes=tuple(cell.task.class_names),
        spatial_shape=tuple(kept[0].image.shape[1:]),
        selection=settings.selection(),
        classifier={**classifier.record, "weights_sha256": weights[0]},
        missing_families=missing,
        skipped_images=skipped,
        examples=_examples(cell.task.class_names, rows[:EXAMPLES]),
    )
    return CellResult(pd.concat(tables, ignore_index=True), pd.DataFrame(rows), description)


def image_seed(seed: int, task: str, image: str) -> int:
    """Seed of all draws at one image; the same for every model, so that cells differ by their networks alone."""
    return draw_seed(seed, f"{task}/{image}", 0)


def weights_sha256(network: nn.Module) -> str:
    """Hexadecimal SHA-256 of a network's parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _keep_only(cell: Cell, key: str) -> None:
    """Delete images observed with other settings, weights or in another format."""
    record = cell.folder / "identity.json"
    known = json.loads(record.read_text(encoding="utf-8"))["fingerprint"] if record.is_file() else None
    if known != key:
        remove_files(cell.folder / "images", lambda name: not name.startswith("."), cell.output)
        write_text(record, json.dumps({"fingerprint": key}), cell.output)


def _files(folder: Path, sample: Sample) -> tuple[Path, Path, Path]:
    """Files of an image: measurements, scalars, planes. Scalars are written last: the image is kept if they exist."""
    table, scalars, maps = (folder / "images" / f"{sample.name}{suffix}" for suffix in (".parquet", ".json", ".npz"))
    return table, scalars, maps


def _is_kept(folder: Path, sample: Sample) -> bool:
    return _files(folder, sample)[1].is_file()


def _keep(cell: Cell, sample: Sample, observation: Observation) -> None:
    table, scalars, maps = _files(cell.folder, sample)
    place = {"task": cell.task.name, "architecture": cell.model.name, "image": sample.name}
    measurements = observation.measurements
    for position, (name, value) in enumerate(place.items()):
        measurements.insert(position, name, value)
    buffer = io.BytesIO()
    measurements.to_parquet(buffer, index=False)
    write_bytes(table, buffer.getvalue(), cell.output)
    write_planes(maps, example_planes(observation.maps, sample.affine), cell.output)
    content = {"scalars": {**place, "label": sample.label, **observation.scalars}, "missing": observation.missing}
    write_text(scalars, json.dumps(content), cell.output)


def _examples(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> tuple[Example, ...]:
    return tuple(
        Example(row["image"], class_texts(_label(row["label"]), names), class_texts(_predicted(row), names), row["probability"])
        for row in rows
    )


def _predicted(row: Mapping[str, Any]) -> Label:
    return _label(row.get("label_answers", row["predicted"]))


def _label(stored: Any) -> Label:
    return tuple(stored) if isinstance(stored, list) else int(stored)


def _read_kept(cell: Cell, samples: Sequence[Sample]) -> tuple[list[pd.DataFrame], list[dict[str, Any]], dict[str, str]]:
    """Measurements and scalars of the images, and why families are missing."""
    tables: list[pd.DataFrame] = []
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for sample in samples:
        table, scalars, _ = _files(cell.folder, sample)
        content = json.loads(scalars.read_text(encoding="utf-8"))
        tables.append(pd.read_parquet(table))
        rows.append(content["scalars"])
        missing.update(content["missing"])
    return tables, rows, missing
