"""results.json as frozen records. Whatever it does not hold is None here, and NaN in the arrays that are drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_ifim.io.errors import InputError

__all__ = ["Cell", "Claim", "Comparison", "Curve", "Estimate", "Failure", "Results", "Tally", "read_results"]

SCHEMA_VERSION = 1

Array = npt.NDArray[np.float64]
EMPTY: Mapping[str, Any] = MappingProxyType({})


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
    """Mean over images and 95 % band of a measure of one family, all [norms]; NaN where there is no value."""

    family: str
    measure: str
    relative_norm: Array
    images: Array
    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Comparison:
    """Two families compared over the same images; difference is positive where the first moves the classifier more."""

    first: str
    second: str
    measure: str
    kind: str
    images: int
    first_mean: float | None
    second_mean: float | None
    difference: Estimate
    interval: str
    p_value: float | None
    p_holm: float | None
    rank_biserial: float | None
    cohens_dz: float | None
    holds: bool
    reverse: bool


@dataclass(frozen=True, eq=False)
class Cell:
    """One task with one architecture.

    missing_families: why a family was not measured; skipped_images: why an image was left out, both by name.
    """

    task: str
    title: str
    note: str
    architecture: str
    classes: tuple[str, ...]
    images: int
    spatial_shape: tuple[int, ...]
    selection: Mapping[str, Any]
    classifier: Mapping[str, Any]
    curves: tuple[Curve, ...]
    comparisons: tuple[Comparison, ...]
    auroc_area: Estimate | None
    divergence_ratio: Mapping[str, Estimate]
    scalars: Mapping[str, Estimate]
    by_class: Mapping[str, Mapping[str, Estimate]]
    missing_families: Mapping[str, str]
    skipped_images: Mapping[str, str]

    def comparison(self, first: str, second: str, measure: str, kind: str = "area") -> Comparison | None:
        """The comparison of these two families, where there is one."""
        wanted = (first, second, measure, kind)
        return next((c for c in self.comparisons if (c.first, c.second, c.measure, c.kind) == wanted), None)

    def curve(self, family: str, measure: str) -> Curve | None:
        """The curve of this family and measure, where there is one."""
        return next((c for c in self.curves if (c.family, c.measure) == (family, measure)), None)


@dataclass(frozen=True)
class Tally:
    """How many cells there are, and in how many the claim holds, points the claimed way, or is reversed."""

    cells: int | None
    holds: int | None
    favourable: int | None
    reverse: int | None


@dataclass(frozen=True)
class Claim:
    """What was asked of every cell, and how often the answer was yes."""

    first: str
    second: str
    measure: str
    total: Tally
    by_task: Mapping[str, Tally]
    by_measure: Mapping[str, Tally]


@dataclass(frozen=True)
class Failure:
    """A cell without a result."""

    task: str
    architecture: str
    reason: str


@dataclass(frozen=True, eq=False)
class Results:
    """All of results.json. described: tasks and models as they were configured."""

    name: str
    seed: int | None
    command: str | None
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    seconds: float | None
    relative_norms: tuple[float, ...]
    cells: tuple[Cell, ...]
    claim: Claim
    failed: tuple[Failure, ...]
    described: tuple[Mapping[str, Any], ...]

    def tasks(self) -> dict[str, list[Cell]]:
        """Cells by task, in the order of the file."""
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            found.setdefault(cell.task, []).append(cell)
        return found

    def task_names(self) -> list[str]:
        """All tasks, also those of which every cell failed."""
        return list(dict.fromkeys([*self.tasks(), *(failure.task for failure in self.failed)]))

    def title(self, task: str) -> str:
        """What a task is called for people; its name where all of its cells failed."""
        known = [cell.title for cell in self.cells if cell.task == task]
        known += [content["title"] for content in self.described if content.get("name") == task and "title" in content]
        return known[0] if known else task

    def asked(self, cell: Cell) -> Comparison | None:
        """The cell's comparison that the claim is about."""
        return cell.comparison(self.claim.first, self.claim.second, self.claim.measure)


def read_results(path: Path) -> Results:
    """Read results.json; raises InputError where it is missing, of another schema, or incomplete."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; pass the folder that an experiment was written to.") from error
    except ValueError as error:
        raise InputError(f"{path}: no JSON ({error}); run the experiment again.") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(f"{path}: schema version {version}, this report reads {SCHEMA_VERSION}; run the experiment again.")
    try:
        return _results(content)
    except KeyError as error:
        raise InputError(f"{path}: {error} is missing; run the experiment again.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: an entry has another form than schema version {version} ({error}).") from error


def _results(content: Mapping[str, Any]) -> Results:
    return Results(
        name=content["name"],
        seed=content.get("seed"),
        command=content.get("command"),
        settings=content.get("settings") or EMPTY,
        environment=content.get("environment") or EMPTY,
        seconds=content.get("seconds"),
        relative_norms=tuple(content.get("relative_norms") or ()),
        cells=tuple(_cell(cell) for cell in content["cells"]),
        claim=_claim(content["claim"]),
        failed=tuple(Failure(f["task"], f["architecture"], f["reason"]) for f in content.get("failed") or ()),
        described=(*(content.get("tasks") or ()), *(content.get("models") or ())),
    )


def _cell(content: Mapping[str, Any]) -> Cell:
    area = content.get("macro_auroc_area")
    by_class = content.get("by_class") or EMPTY
    return Cell(
        task=content["task"],
        title=content.get("task_title") or content["task"],
        note=content.get("task_note") or "",
        architecture=content["architecture"],
        classes=tuple(content.get("classes") or ()),
        images=content["images"],
        spatial_shape=tuple(content.get("spatial_shape") or ()),
        selection=content.get("selection") or EMPTY,
        classifier=content.get("classifier") or EMPTY,
        curves=tuple(_curve(curve) for curve in content["curves"]),
        comparisons=tuple(_comparison(comparison) for comparison in content["comparisons"]),
        auroc_area=_estimate(area, "difference") if area else None,
        divergence_ratio=_estimates(content.get("divergence_ratio"), "median"),
        scalars=_estimates(content.get("images_scalars"), "mean"),
        by_class={name: _estimates(values, "mean") for name, values in by_class.items()},
        missing_families=content.get("missing_families") or EMPTY,
        skipped_images=content.get("skipped_images") or EMPTY,
    )


def _curve(content: Mapping[str, Any]) -> Curve:
    names = ("relative_norm", "images", "mean", "low", "high")
    columns = {name: np.array([np.nan if v is None else v for v in content[name]], dtype=np.float64) for name in names}
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError(f"curve of {content['family']}, {content['measure']}: columns of different lengths")
    return Curve(family=content["family"], measure=content["measure"], **columns)


def _comparison(content: Mapping[str, Any]) -> Comparison:
    return Comparison(
        first=content["first"],
        second=content["second"],
        measure=content["measure"],
        kind=content["kind"],
        images=content["images"],
        first_mean=content.get("first_mean"),
        second_mean=content.get("second_mean"),
        difference=_estimate(content, "difference"),
        interval=content.get("interval") or "none",
        p_value=content.get("p_value"),
        p_holm=content.get("p_holm"),
        rank_biserial=content.get("rank_biserial"),
        cohens_dz=content.get("cohens_dz"),
        holds=bool(content["holds"]),
        reverse=bool(content["reverse"]),
    )


def _claim(content: Mapping[str, Any]) -> Claim:
    return Claim(
        first=content["first"],
        second=content["second"],
        measure=content["measure"],
        total=_tally(content),
        by_task={name: _tally(tally) for name, tally in (content.get("by_task") or EMPTY).items()},
        by_measure={name: _tally(tally) for name, tally in (content.get("by_measure") or EMPTY).items()},
    )


def _tally(content: Mapping[str, Any]) -> Tally:
    return Tally(*(content.get(name) for name in ("cells", "holds", "favourable", "reverse")))


def _estimates(content: Mapping[str, Any] | None, value: str) -> dict[str, Estimate]:
    return {name: _estimate(entry, value) for name, entry in (content or EMPTY).items() if entry}


def _estimate(content: Mapping[str, Any], value: str) -> Estimate:
    keys: Sequence[str] = (value, "low", "high", "images", "rows")
    return Estimate(*(content.get(key) for key in keys))
