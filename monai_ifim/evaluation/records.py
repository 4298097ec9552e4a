"""The records of an experiment: what results.json holds, as frozen classes that are written and read by msgspec.

A number without a value is None, in arrays NaN, in the file null. The field names are the file's keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from monai_ifim.io.atomic import write_bytes
from monai_ifim.io.errors import InputError

__all__ = [
    "SCHEMA_VERSION",
    "Array",
    "CellDescription",
    "CellRecord",
    "Claim",
    "Comparison",
    "Curve",
    "Estimate",
    "Example",
    "ExperimentHeader",
    "ExperimentRecord",
    "FailedCell",
    "LabelRecord",
    "Tally",
    "known",
    "read_experiment",
    "write_experiment",
]

SCHEMA_VERSION = 2

Array = npt.NDArray[np.float64]
_MISSING_FIELD = re.compile(r"missing required field `(\w+)`(?: - at `(.*)`)?")


@dataclass(frozen=True)
class Estimate:
    """A value over `images` images (or `rows` measurements of them) with its 95 % interval, in the unit of its name."""

    value: float | None
    low: float | None = None
    high: float | None = None
    images: int | None = None
    rows: int | None = None


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean over images and 95 % band of a measure of one family: all [norms], NaN where there is no value."""

    family: str
    measure: str
    relative_norm: Array
    images: Array
    mean: Array
    low: Array
    high: Array

    def __post_init__(self) -> None:
        """Raise ValueError for columns of different lengths."""
        columns = (self.relative_norm, self.images, self.mean, self.low, self.high)
        if len({column.shape for column in columns}) != 1:
            raise ValueError(f"curve of {self.family}, {self.measure}: columns of different lengths")


@dataclass(frozen=True)
class Comparison:
    """Two families compared over the same images by one measure.

    kind: "area" (mean along the grid of norms) or "removal". difference: positive where the first moves the classifier more;
    low, high: its 95 % interval; interval: "bca", "percentile" or "none". p_holm: p_value adjusted over all cells. holds,
    reverse: the verdict; neither where nothing is shown.
    """

    first: str
    second: str
    measure: str
    kind: str
    images: int
    first_mean: float | None
    second_mean: float | None
    difference: float | None
    low: float | None
    high: float | None
    interval: str
    p_value: float | None
    rank_biserial: float | None
    cohens_dz: float | None
    p_holm: float | None = None
    holds: bool = False
    reverse: bool = False

    @property
    def key(self) -> tuple[str, str, str, str]:
        """(first, second, measure, kind): what is compared."""
        return self.first, self.second, self.measure, self.kind

    @property
    def estimate(self) -> Estimate:
        """The difference with its interval."""
        return Estimate(self.difference, self.low, self.high, self.images)


@dataclass(frozen=True)
class LabelRecord:
    """One of independent labels. positive, negative, unknown: numbers of images. auroc, negative_log_likelihood (nats): of the
    unperturbed answers over the images whose label is known. effect: how much farther the claim's first family moves the
    probability of the label than its second, averaged over the norms, over all images."""

    name: str
    positive: int
    negative: int
    unknown: int
    auroc: Estimate
    negative_log_likelihood: Estimate
    effect: Estimate


@dataclass(frozen=True)
class Example:
    """A test image whose maps are stored as planes. label, predicted: names of classes."""

    image: str
    label: str
    predicted: str
    probability: float


@dataclass(frozen=True, eq=False, kw_only=True)
class CellDescription:
    """A task with an architecture, before any statistics.

    task_title, task_note: for readers. selection: {"energy"} or {"rank"} of the leading eigenspace. classifier: performance and
    how it was trained. missing_families: why a family was not measured; skipped_images: why an image was left out, both by name.
    """

    task: str
    architecture: str
    task_title: str
    task_note: str = ""
    classes: tuple[str, ...] = ()
    spatial_shape: tuple[int, ...] = ()
    selection: Mapping[str, Any] = field(default_factory=dict)
    classifier: Mapping[str, Any] = field(default_factory=dict)
    missing_families: Mapping[str, str] = field(default_factory=dict)
    skipped_images: Mapping[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class CellRecord(CellDescription):
    """Results of one cell.

    images: how many. macro_auroc_area: macro AUROC lost under the claim's first family more than under its second.
    divergence_ratio: measured over predicted divergence of steps, "inside" and "outside" the locality radius.
    images_scalars: means over images by quantity; by_class: the same by predicted class. labels: of a network with independent
    labels, one by one.
    """

    images: int
    curves: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]
    macro_auroc_area: Estimate | None = None
    divergence_ratio: Mapping[str, Estimate] = field(default_factory=dict)
    images_scalars: Mapping[str, Estimate] = field(default_factory=dict)
    by_class: Mapping[str, Mapping[str, Estimate]] = field(default_factory=dict)
    labels: tuple[LabelRecord, ...] = ()

    def comparison(self, first: str, second: str, measure: str, kind: str = "area") -> Comparison | None:
        """The comparison of these two families, None where there is none."""
        return next((c for c in self.comparisons if c.key == (first, second, measure, kind)), None)

    def curve(self, family: str, measure: str) -> Curve | None:
        """The curve of this family and measure, None where there is none."""
        return next((c for c in self.curves if (c.family, c.measure) == (family, measure)), None)


@dataclass(frozen=True)
class Tally:
    """Number of cells compared, and in how many the claim holds, the difference is positive, the claim is reversed."""

    cells: int
    holds: int
    favourable: int
    reverse: int


@dataclass(frozen=True)
class Claim:
    """The comparison that every cell was asked for, and how often it holds: over all cells, by task, by measure."""

    first: str
    second: str
    measure: str
    total: Tally
    by_task: Mapping[str, Tally]
    by_measure: Mapping[str, Tally]


@dataclass(frozen=True)
class FailedCell:
    """A cell without a result."""

    task: str
    architecture: str
    reason: str


@dataclass(frozen=True, eq=False, kw_only=True)
class ExperimentHeader:
    """How an experiment was made. tasks, models: as they were configured."""

    name: str
    seed: int | None = None
    command: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    seconds: float | None = None
    relative_norms: tuple[float, ...] = ()
    tasks: tuple[Mapping[str, Any], ...] = ()
    models: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class ExperimentRecord(ExperimentHeader):
    """All of results.json."""

    cells: tuple[CellRecord, ...]
    claim: Claim
    failed: tuple[FailedCell, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def cells_by_task(self) -> dict[str, list[CellRecord]]:
        """Cells by task, in the order of the file."""
        found: dict[str, list[CellRecord]] = {}
        for cell in self.cells:
            found.setdefault(cell.task, []).append(cell)
        return found

    def task_names(self) -> list[str]:
        """All tasks, also those of which every cell failed."""
        return list(dict.fromkeys([*self.cells_by_task(), *(failure.task for failure in self.failed)]))

    def title(self, task: str) -> str:
        """Title of a task; its name where no title is recorded."""
        titles = [cell.task_title for cell in self.cells if cell.task == task]
        titles += [content["title"] for content in self.tasks if content.get("name") == task and "title" in content]
        return titles[0] if titles else task

    def asked(self, cell: CellRecord) -> Comparison | None:
        """The cell's comparison that the claim is about."""
        return cell.comparison(self.claim.first, self.claim.second, self.claim.measure)


def known(value: float) -> float | None:
    """The value as a Python float; None where it is not finite."""
    return float(value) if math.isfinite(value) else None


def write_experiment(path: Path, record: ExperimentRecord) -> None:
    """Write results.json, whole or not at all."""
    write_bytes(path, msgspec.json.format(msgspec.json.encode(record, enc_hook=_plain), indent=1) + b"\n", root=path.parent)


def read_experiment(path: Path) -> ExperimentRecord:
    """Read results.json; raises InputError where it is missing, of another schema version, or incomplete."""
    try:
        content = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; pass the folder that an experiment was written to.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no JSON ({error}); run the experiment again.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {version}, this report reads {SCHEMA_VERSION}; run the experiment again.")
    try:
        return msgspec.convert(content, ExperimentRecord, dec_hook=_array)
    except msgspec.ValidationError as error:
        missing = _MISSING_FIELD.search(str(error))
        if missing is None:
            raise InputError(f"{path}: an entry has another form than schema version {version} ({error}).") from error
        place = f" in {missing[2]}" if missing[2] else ""
        raise InputError(f"{path}: {missing[1]!r} is missing{place}; run the experiment again.") from error


def _plain(value: Any) -> Any:
    """Arrays as lists, NumPy scalars as Python's, and anything else as text."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else str(value)


def _array(kind: type, value: Any) -> Any:
    """A list of numbers and nulls as float64, null as NaN."""
    if not isinstance(value, list):
        raise TypeError(f"Expected `array`, got `{type(value).__name__}`")
    return np.array([np.nan if one is None else one for one in value], dtype=np.float64)
