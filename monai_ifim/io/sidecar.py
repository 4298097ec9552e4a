"""The sidecar CASE_ifim.json: plain data on a case, its files and how they were made. It holds nothing personal from DICOM."""

from __future__ import annotations

import json
import math
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from monai_ifim.io import atomic
from monai_ifim.io.coordinate_sensitivity import described_coordinates
from monai_ifim.io.errors import InputError, OutputError, single_line
from monai_ifim.io.geometry import Affine
from monai_ifim.io.grids import MEANING, Grid, computed_grid, grid_of_files, on, per_square
from monai_ifim.io.intended_use import far_sentence
from monai_ifim.io.label_volumes import described_answer, described_volumes
from monai_ifim.io.maps import MapContent
from monai_ifim.io.model import ModelIdentity, output_names
from monai_ifim.io.older_sidecars import SCHEMA_VERSION, unit_of_map, up_to_date
from monai_ifim.io.reading import Reading
from monai_ifim.io.seal import sealed
from monai_ifim.io.units import NETWORK_UNITS
from monai_ifim.version import __version__

PACKAGES = ("torch", "monai", "numpy", "nibabel", "itk")
SEAL = "sidecar_sha256"  # the last entry of a sidecar
SPACES = {
    "scanner": "components of the scan itself, on its own grid and in its own unit: the network after its preprocessing",
    "network": "components of the image as the network saw it, on the network's grid",
    "native": "components of the image as the network saw it, carried to the input's grid by the inverse of the preprocessing",
}


@dataclass(frozen=True)
class InputIdentity:
    """The input: base name, content hash, grid, and the reader that opened it. frame: of a 4D file, from 0. beside: files and
    values that the network's input is made of besides it (`OpenedSource.beside`). files: all that it consists of, with name,
    SHA-256 and bytes. reading: what its reader decided. choice: of its values, where it decides which are read
    (`OpenedSource.choice`)."""

    file: str
    sha256: str | None
    shape: tuple[int, ...]
    affine: list[list[float]]
    reader: str | None
    frame: int | None = None
    series: str | None = None
    resampled: bool = False
    beside: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[Mapping[str, Any]] = ()
    reading: Reading = field(default_factory=Reading)
    choice: Mapping[str, str] = field(default_factory=dict)

    def without_names(self, file: str) -> InputIdentity:
        """The same input, called `file`, without the names of its own files."""
        beside = {key: {**value, "file": None} for key, value in self.beside.items()}
        beside = {
            key: value | ({"files": _numbered(value["files"])} if "files" in value else {}) for key, value in beside.items()
        }
        return replace(self, file=file, beside=beside, files=_numbered(self.files))


def _numbered(files: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The files of an input with numbers in place of their names."""
    return [{**each, "name": f"file-{number:04d}"} for number, each in enumerate(files, 1)]


@dataclass(frozen=True)
class MapFile:
    """One NIfTI file of the case. norm: L2 norm of the true values on the file's grid, which are those in the file times `scale`,
    None for labels; window: range of the stored values to display; sha256: of the file."""

    file: str
    content: MapContent
    shape: tuple[int, ...]
    affine: list[list[float]]
    norm: float | None
    scale: float = 1.0
    window: tuple[float, float] | None = None
    sha256: str | None = None

    def described(self, units: Mapping[str, str], grid: Grid) -> dict[str, Any]:
        """The entry of the sidecar; units: those of the case; grid: that of its files."""
        return {
            "file": self.file,
            **asdict(self.content),
            "sha256": self.sha256,
            "unit": unit_of_map(self.content.kind, units),
            "grid": grid,
            "norm": self.norm,
            "scale": self.scale,
            "window": self.window,
            "shape": self.shape,
            "affine": self.affine,
        }


@dataclass(frozen=True)
class CaseFacts:
    """A case as a whole: its input, the model, the space and the unit of the maps, and the record of the decomposition
    (`adapt.components.record_of_image`)."""

    input: InputIdentity
    model: ModelIdentity
    space: str
    record: Mapping[str, Any]
    unit: str = NETWORK_UNITS


def compose_sidecar(
    case: str,
    facts: CaseFacts,
    files: list[MapFile],
    scan_unit: str | None = None,
    segmentation: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of a sidecar as plain data, NaN and infinity as None, with the names of the companion files of `io.case`.

    scan_unit: unit of the scan, if it is among the files; segmentation: `io.segmentation.described`.
    """
    model, record = facts.model, facts.record
    unit = facts.unit
    step = unit if record.get("metric") is None else str(record.get("metric_unit"))
    step = step.replace("unit of the image", unit) if facts.space == "scanner" else step
    norms: Mapping[str, Any] | None = record.get("norms")
    departures = record.get("departures") or []
    grid, of_files = computed_grid(facts.space), grid_of_files(facts.space)
    names = output_names(model.class_names, len(record.get("probabilities", [])))
    volumes = described_volumes(record, names, step)
    units = {
        "maps": unit,
        "eigenvalues": per_square(step, grid),
        "sensitivity": per_square(step, grid),
        "eigenvectors": f"unit norm {on(grid)}",
        "locality_radius": f"{step}, L2 norm {on(grid)}",
        "locality_share": f"1, share of the L2 norm of the image {on(grid)}",
        "locality_rms": f"{unit}, root mean square {on(grid)}",
    } | ({} if scan_unit is None else {"source": scan_unit})
    content = {
        "schema_version": SCHEMA_VERSION,
        "generator": {"name": "monai_ifim", "version": __version__, "paper": "arXiv:2606.16362"},
        "input": asdict(facts.input) | {"reading": facts.input.reading.described(), "tied_channels": record.get("tied_channels")},
        "model": {
            "bundle": model.name,
            "version": model.version,
            "weights_sha256": model.weights_sha256,
            "config_sha256": model.config_sha256,
            "bundle_sha256": model.bundle_sha256,
            "files": dict(model.files),
            "head": record.get("head"),
            "head_source": record.get("head_source"),
            "class_names": list(model.class_names),
            "intended_use": model.intended_use.text,
        },
        "prediction": _prediction(record, model.class_names),
        "answer": described_answer(record, names),
        "volumes": None if volumes is None else {**volumes, "step_grid": grid},
        "segmentation": segmentation,
        "coordinates": described_coordinates(record, names, unit, grid),
        "space": {"name": facts.space, "meaning": SPACES[facts.space]},
        "grids": {"decomposition": grid, "files": of_files, "meaning": {name: MEANING[name] for name in {grid: 0, of_files: 0}}},
        "units": units,
        "settings": record.get("settings"),
        "warnings": [*facts.input.reading.words(), *filter(None, [far_sentence(departures)])],
        "departures": departures,
        **{name: record.get(name) for name in _RESULTS},
        "device": _device(record),
        "norms": None if norms is None else {"grid": grid, **norms},
        "high_share": None if norms is None else _high_share(norms),
        "files": [file.described(units, of_files) | {"trace_share": _trace_share(file.content, record)} for file in files],
        "scene": f"{case}.mrml",
        "planes": f"{case}_planes.npz",
        "parametric_maps": [],
        "written": {},
        "versions": versions(),
        "peak_memory_bytes": peak_memory(),
    }
    plain: dict[str, Any] = _plain(content)
    return plain


def _device(record: Mapping[str, Any]) -> str | None:
    """The kind of device, without its number, which differs between workers."""
    device = record.get("device")
    return None if device is None else str(device).partition(":")[0]


def _trace_share(content: MapContent, record: Mapping[str, Any]) -> float | None:
    """Share of the trace of F that a map holds: the sensitivity that of what was computed or estimated; None for other maps."""
    if content.kind == "sensitivity":
        share: float | None = record.get("sensitivity_share")
        return share
    values, trace = record.get("eigenvalues") or (), record.get("trace")
    if content.component is None or content.component > len(values) or not trace:
        return None
    return float(values[content.component - 1]) / float(trace)


def _high_share(norms: Mapping[str, Any]) -> float | None:
    """|high| / |input| on the grid of the decomposition; None if the image is zero."""
    return norms["high"] / norms["input"] if norms["input"] else None


def write_sidecar(path: Path, content: Mapping[str, Any]) -> None:
    """Write the sidecar, whole or absent; NaN and infinity become null. Raises OutputError for anything but plain data.

    Its last entry, SEAL, is the SHA-256 of the file without that entry (`io.seal`).
    """
    try:
        text = sealed(_plain(content), SEAL)
    except (TypeError, ValueError) as error:
        raise OutputError(f"{path.name}: the sidecar holds something other than plain data ({error}).") from error
    atomic.write_bytes(path, text)


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read a sidecar, one of schema 1 in the form of schema 2; raises InputError if it is damaged or of another version."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path.name}: not a readable sidecar ({error}).") from error
    return parse_sidecar(path.name, text)


def parse_sidecar(name: str, text: bytes) -> dict[str, Any]:
    """`read_sidecar` of a file that was read; name: of the file, for the error."""
    try:
        content = json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not a readable sidecar ({error}).") from error
    try:
        return {key: value for key, value in up_to_date(content).items() if key != SEAL}
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{name}: not a sidecar of a whole case ({single_line(said)[:200]}): run the case again.") from error


def plain_affine(affine: Affine) -> list[list[float]]:
    """The affine as nested lists of floats."""
    return [[float(value) for value in row] for row in affine]


def versions() -> dict[str, str]:
    """Versions of the programs that influence the numbers."""
    return {"monai_ifim": __version__, "python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def peak_memory() -> int:
    """Peak memory in bytes: of the accelerator if one is in use, else of the process."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return int(torch.cuda.max_memory_allocated())
    unit = 1 if sys.platform == "darwin" else 1024
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit


@cache
def _version(package: str) -> str:
    """Cached: reading installed metadata takes milliseconds, and a run writes many sidecars."""
    return version(package)


_RESULTS = (
    "eigenvalues", "rank", "energy_kept", "trace", "trace_error", "locality_radius", "locality_is_lower_bound", "locality_share",
    "locality_rms", "saturation", "status", "stopped", "method",
    "method_reason", "corrections", "jacobian_products", "error_bound", "confidence", "residuals",
    "metric", "preprocessing", "left_out", "output", "dtype", "computation", "verification", "seconds",
)  # fmt: skip


def _prediction(record: Mapping[str, Any], class_names: tuple[str, ...]) -> dict[str, Any]:
    values = list(record.get("probabilities", []))
    names = output_names(class_names, len(values))
    best = max(range(len(values)), key=values.__getitem__) if values else None
    kind = record.get("values", "probability")
    return {
        "class": None if best is None or kind != "probability" else names[best],
        kind: dict(zip(names, values, strict=True)),
        "logits": list(record.get("logits", [])),
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
