"""One cell of an experiment, a task with a model: its classifier, its images, and what is kept on disk of them."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped, unused-ignore]
import torch
from torch import Tensor, nn

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.models import Model
from monai_ifim.evaluation.classifiers.tasks import Sample, Task, fingerprint
from monai_ifim.evaluation.measuring.observation import Observation, ObservationSettings, Observer
from monai_ifim.evaluation.measuring.perturbations import draw_seed
from monai_ifim.evaluation.records import CellDescription
from monai_ifim.io.atomic import write_bytes, write_text

__all__ = ["Cell", "CellResult", "run_cell", "weights_sha256"]

MONTAGE_IMAGES = 4
MAPS = ("image", "high", "low", "eigenvector", "sensitivity", "integrated_gradients", "gradcam")

Advance = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Cell:
    """A task with a model, and the folder that keeps what is measured."""

    task: Task
    model: Model
    folder: Path

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
    """Train or load the classifier, then observe the images that an earlier run has not observed with the same settings.

    advance is called with what is being done, how much of it is done and how much there is. Raises IFIMError where not
    even one image can be observed.
    """
    classifier = cell.model.classifier(cell.task, cache, lambda done, total: advance("training", done, total))
    samples, skipped = cell.task.chosen(images, seed)
    if not samples:
        raise IFIMError(f"{cell.name}: no test image can be read ({next(iter(skipped.values()), 'none is listed')}).")
    weights = [weights_sha256(network) for network in (classifier.network, classifier.twin, *classifier.siblings)]
    identity = {
        "task": cell.task.describe(),
        "weights": weights,
        "head": classifier.head,
        "observation": asdict(settings),
        "seed": seed,
    }
    _keep_only(cell.folder, fingerprint(identity))
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
    _write_montage(cell, kept[:MONTAGE_IMAGES])
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


def _keep_only(folder: Path, key: str) -> None:
    """Forget what was measured with other settings or other weights."""
    record = folder / "identity.json"
    known = json.loads(record.read_text(encoding="utf-8"))["fingerprint"] if record.is_file() else None
    if known != key:
        for path in [*folder.glob("images/*"), folder / "montage.npz"]:
            path.unlink(missing_ok=True)
        write_text(record, json.dumps({"fingerprint": key}))


def _files(folder: Path, sample: Sample) -> tuple[Path, Path, Path]:
    """Measurements, scalars and maps of an image; the scalars are written last and so stand for all."""
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
    write_bytes(table, buffer.getvalue())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_slices(observation.maps))  # type: ignore[arg-type]
    write_bytes(maps, buffer.getvalue())
    content = {"scalars": {**place, "label": sample.label, **observation.scalars}, "missing": observation.missing}
    write_text(scalars, json.dumps(content))


def _slices(maps: dict[str, Tensor]) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """[H, W] of each map: the channel, and in 3D the slice along the last axis, of the most sensitive voxel.

    MONAI's first spatial axis runs from left to right, so a picture for the eye is the transpose.
    """
    sensitivity = maps["sensitivity"]
    place = [int(index) for index in np.unravel_index(int(sensitivity.argmax()), tuple(sensitivity.shape))]
    found = {name: value[place[0]].to(torch.float32).numpy() for name, value in maps.items()}
    found = {name: value[..., place[3]] if len(place) > 3 else value for name, value in found.items()}
    return {name: found.get(name, np.full_like(found["image"], np.nan)).T for name in MAPS}


def _write_montage(cell: Cell, samples: Sequence[Sample]) -> None:
    """Maps of a few images, those of the first one's size."""
    contents = []
    for sample in samples:
        _, scalars, maps = _files(cell.folder, sample)
        record = json.loads(scalars.read_text(encoding="utf-8"))["scalars"]
        with np.load(maps) as stored:
            contents.append((record, {name: stored[name] for name in MAPS}))
    shape = contents[0][1]["image"].shape
    contents = [(record, arrays) for record, arrays in contents if arrays["image"].shape == shape]
    records = [record for record, _ in contents]
    names = cell.task.class_names
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=np.array([record["image"] for record in records]),
        labels=np.array([_class_name(names, record["label"]) for record in records]),
        predictions=np.array([_class_name(names, record["predicted"]) for record in records]),
        probabilities=np.array([record["probability"] for record in records]),
        **{name: np.stack([arrays[name] for _, arrays in contents]) for name in MAPS},  # type: ignore[arg-type]
    )
    write_bytes(cell.folder / "montage.npz", buffer.getvalue())


def _class_name(names: Sequence[str], index: int) -> str:
    return names[index] if 0 <= index < len(names) else "unknown"


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
