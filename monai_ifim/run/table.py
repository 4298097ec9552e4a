"""The files of a run: cases.csv and cases.parquet with one row per case, and run.json with its settings."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from monai_ifim.display.asked import asked_text
from monai_ifim.display.vocabulary import term_of
from monai_ifim.io import InputError, MapContent, atomic
from monai_ifim.io.seal import sealed
from monai_ifim.run.coordinate_table import CoordinateRow, coordinate_rows, write_coordinates
from monai_ifim.run.labels import label_columns, label_values
from monai_ifim.run.stage_seconds import StageSeconds
from monai_ifim.run.volumes import volume_fields

__all__ = ["COLUMNS", "SCHEMA", "SCHEMA_VERSION", "UNITS", "CaseRow", "row_from_sidecar", "write_run", "write_table"]

SCHEMA_VERSION = "1.4"  # of cases.parquet; a reader of 1.x reads every 1.y
SINCE_1_1 = ("verification", "deviation", "verified_by")  # columns that a table of 1.0 lacks
SINCE_1_2 = ("path",)  # and one of 1.1 too
SINCE_1_3 = ("warnings",)  # and one of 1.2 too
VOLUMES = ("volume_tolerances", "volume_slopes", "volume_changes")
OF_VOLUMES = ("volume_sentence", "volume_labels", *VOLUMES)
SINCE_1_4 = (  # and one of 1.3 too
    "norms_grid", "locality_share", "locality_rms", "channels", "decomposed", "means_unit", "convergence", "residual",
    "trace_error", "stopped", *OF_VOLUMES, "saturation", "saturated", "locality_is_lower_bound",
)  # fmt: skip
LARGEST_WHOLE = 2**53
SEAL = "run_sha256"  # the last entry of run.json

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class CaseRow:
    """The result of one case. status: "done", "kept" (whole from an earlier run) or "failed"; reason: why it failed.

    Eigenvalues and trace are those of F, in nats per unit^2, where unit is the intensity of the image that was decomposed. Norms
    are L2 norms over all of its voxels and channels on `norms_grid`, the grid of the decomposition ("network" or "input"); of
    cases before schema 2.4, where that is empty, they are those of the files. locality_radius, locality_share, locality_rms: of
    each component, on the grid of the decomposition (`adapt.norms`). channels: "tied" if the image is one grey image in several
    channels of the network's input, "each" if every channel has maps, empty if there is but one. verification: "agrees",
    "disagrees", "inconclusive" or "never": the derivatives against differences of the network's output, deviation by how much
    they deviated, verified_by: the case that was verified, "itself" for its own. seconds: of the whole case, or, if it was kept,
    of its decomposition then. path: of the input, relative to what the user named; empty if it is unknown or not to be told.
    warnings: sentences about what was guessed in reading the input. decomposed: which part of the answer, in words, empty for all
    of it. means_unit: "ml" or "voxels", of expected volumes. convergence: "converged" or "not converged"; residual: the
    largest |F u - l u| / l of the components; trace_error: standard error of the trace; stopped: why the iteration ended before
    it had converged, "steps" or "request" (a limit of time). saturation: what a change as large as the image's contrast costs at
    most (`core.saturation`); saturated: "yes" or "no", if that is below the bound. locality_is_lower_bound: "yes" where the radii
    were found by few passes and may be too short, else "no". volume_...: of each of `volume_labels`
    (`run.volumes`). listed: the name in the list of cases; stages: how its seconds in this run divide; coordinates: rows of
    coordinates.csv (no columns). Unknown values are None, unknown texts empty. Field by field with units: UNITS.
    """

    case: str
    status: str
    reason: str = ""
    input: str = ""
    prediction: str = ""
    probability: float | None = None
    rank: int | None = None
    energy_kept: float | None = None
    eigenvalue: float | None = None
    trace: float | None = None
    seconds: float | None = None
    eigenvalues: Numbers | None = None
    class_names: tuple[str, ...] | None = None
    probabilities: Numbers | None = None
    means: Numbers | None = None
    means_unit: str = ""
    norm_input: float | None = None
    norm_high: float | None = None
    norm_low: float | None = None
    norm_sensitivity: float | None = None
    norms_grid: str = ""
    locality_radius: Numbers | None = None
    locality_share: Numbers | None = None
    locality_rms: Numbers | None = None
    channels: str = ""
    head: str = ""
    decomposed: str = ""
    method: str = ""
    jacobian_products: int | None = None
    verification: str = ""
    deviation: float | None = None
    verified_by: str = ""
    space: str = ""
    unit: str = ""
    frame: int | None = None
    input_sha256: str = ""
    weights_sha256: str = ""
    path: str = ""
    warnings: str = ""
    convergence: str = ""
    residual: float | None = None
    trace_error: float | None = None
    stopped: str = ""
    volume_sentence: str = ""
    volume_labels: tuple[str, ...] | None = None
    volume_tolerances: Numbers | None = None
    volume_slopes: Numbers | None = None
    volume_changes: Numbers | None = None
    saturation: float | None = None
    saturated: str = ""
    locality_is_lower_bound: str = ""
    listed: str = ""
    coordinates: tuple[CoordinateRow, ...] = ()
    stages: StageSeconds | None = None

    def of_listed(self, name: str, path: str) -> CaseRow:
        """The row with the name of its case in the list of cases, by which a run finds it, and the path of the input."""
        return replace(self, listed=name, path=path)

    @property
    def key(self) -> str:
        """The name of its case in the list of cases."""
        return self.listed or self.case


COLUMNS = (
    "case", "status", "reason", "input", "prediction", "probability", "rank", "energy_kept", "eigenvalue", "trace", "seconds",
    "verification", "path", "input_sha256", "warnings", "decomposed", "convergence", "residual", "saturated",
)  # of cases.csv  # fmt: skip

UNITS: Mapping[str, str] = MappingProxyType(
    {
        "probability": "1",
        "rank": "components",
        "energy_kept": "1 (share of the trace)",
        "eigenvalue": "nats per unit^2",
        "trace": "nats per unit^2",
        "seconds": "s",
        "eigenvalues": "nats per unit^2",
        "probabilities": "1",
        "means": "means_unit, or the unit of the network's output",
        "norm_input": "unit",
        "norm_high": "unit",
        "norm_low": "unit",
        "norm_sensitivity": "nats per unit^2",
        "locality_radius": "unit",
        "locality_share": "1 (share of norm_input)",
        "locality_rms": "unit",
        "jacobian_products": "vector-Jacobian products",
        "deviation": "1 (share of the derivative)",
        "residual": "1 (share of the eigenvalue)",
        "trace_error": "nats per unit^2",
        "volume_tolerances": "means_unit",
        "volume_slopes": "means_unit per unit",
        "volume_changes": "means_unit per unit",
        "saturation": "nats",
    }
)  # "unit" refers to the column of that name

_TEXT, _NUMBER, _WHOLE = pa.string(), pa.float64(), pa.int64()
_TEXTS, _NUMBERS = pa.list_(_TEXT), pa.list_(_NUMBER)
SCHEMA = pa.schema(
    [
        pa.field("case", _TEXT, nullable=False),
        pa.field("status", _TEXT, nullable=False),
        ("reason", _TEXT),
        ("input", _TEXT),
        ("prediction", _TEXT),
        ("probability", _NUMBER),
        ("rank", _WHOLE),
        ("energy_kept", _NUMBER),
        ("eigenvalue", _NUMBER),
        ("trace", _NUMBER),
        ("seconds", _NUMBER),
        ("eigenvalues", _NUMBERS),
        ("class_names", _TEXTS),
        ("probabilities", _NUMBERS),
        ("means", _NUMBERS),
        ("means_unit", _TEXT),
        ("norm_input", _NUMBER),
        ("norm_high", _NUMBER),
        ("norm_low", _NUMBER),
        ("norm_sensitivity", _NUMBER),
        ("norms_grid", _TEXT),
        ("locality_radius", _NUMBERS),
        ("locality_share", _NUMBERS),
        ("locality_rms", _NUMBERS),
        ("channels", _TEXT),
        ("head", _TEXT),
        ("decomposed", _TEXT),
        ("method", _TEXT),
        ("jacobian_products", _WHOLE),
        ("verification", _TEXT),
        ("deviation", _NUMBER),
        ("verified_by", _TEXT),
        ("space", _TEXT),
        ("unit", _TEXT),
        ("frame", _WHOLE),
        ("input_sha256", _TEXT),
        ("weights_sha256", _TEXT),
        ("path", _TEXT),
        ("warnings", _TEXT),
        ("convergence", _TEXT),
        ("residual", _NUMBER),
        ("trace_error", _NUMBER),
        ("stopped", _TEXT),
        ("volume_sentence", _TEXT),
        ("volume_labels", _TEXTS),
        *((name, _NUMBERS) for name in VOLUMES),
        ("saturation", _NUMBER),
        ("saturated", _TEXT),
        ("locality_is_lower_bound", _TEXT),
    ],
    metadata={"monai_ifim.schema_version": SCHEMA_VERSION, "monai_ifim.units": json.dumps(dict(UNITS))},
)
LABELS: Mapping[str, str] = MappingProxyType({name: term_of(name).label for name in SCHEMA.names})  # for people
SCHEMA = SCHEMA.with_metadata(SCHEMA.metadata | {b"monai_ifim.labels": json.dumps(dict(LABELS)).encode()})


def row_from_sidecar(case: str, status: str, sidecar: Mapping[str, Any], seconds: float | None = None) -> CaseRow:
    """The row of a case from its sidecar; raises InputError if the sidecar is damaged."""
    try:
        return _row(case, status, sidecar, seconds)
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{case}: its sidecar is damaged ({said}): remove it and run again.") from error


def _row(case: str, status: str, sidecar: Mapping[str, Any], seconds: float | None) -> CaseRow:
    prediction, model = sidecar["prediction"], sidecar["model"]
    name = _text(prediction["class"])
    probabilities, means = prediction.get("probability", prediction.get("mean_probability")), prediction.get("mean")
    outputs = means if probabilities is None else probabilities
    eigenvalues = _numbers(sidecar["eigenvalues"]) or ()
    norms, stated = _norms_of_files(sidecar["files"]), sidecar.get("norms")
    norms = norms if stated is None else {name: _number(stated[name]) for name in _NORMS}
    verification, saturation = sidecar.get("verification") or {}, sidecar.get("saturation") or {}
    return CaseRow(
        case=case,
        status=status,
        input=_text(sidecar["input"]["file"]),
        prediction=name,
        probability=_number(probabilities[name]) if name else None,
        rank=_count(sidecar["rank"]),
        energy_kept=_number(sidecar["energy_kept"]),
        eigenvalue=eigenvalues[0] if eigenvalues else 0.0,
        trace=_number(sidecar["trace"]),
        seconds=_number(sidecar["seconds"] if seconds is None else seconds),
        eigenvalues=eigenvalues,
        class_names=tuple(map(_text, outputs)),
        probabilities=None if probabilities is None else _numbers(probabilities.values()),
        means=None if means is None else _numbers(means.values()),
        means_unit=_text((sidecar.get("volumes") or {}).get("unit")),
        norm_input=norms.get("input"),
        norm_high=norms.get("high"),
        norm_low=norms.get("low"),
        norm_sensitivity=norms.get("sensitivity"),
        norms_grid="" if stated is None else _text(stated["grid"]),
        locality_radius=_numbers(sidecar["locality_radius"]),
        locality_share=_numbers(sidecar.get("locality_share")),
        locality_rms=_numbers(sidecar.get("locality_rms")),
        channels=_channels(sidecar["input"].get("tied_channels")),
        head=_text(model["head"]),
        decomposed=asked_text(sidecar.get("answer"), _text(model["head"])),
        method=_text(sidecar["method"]),
        jacobian_products=_count(sidecar["jacobian_products"]),
        verification=_text(verification.get("outcome")),
        deviation=_number(verification.get("deviation")),
        verified_by=_text(verification.get("by")),
        space=_text(sidecar["space"]["name"]),
        unit=_text(sidecar["units"]["maps"]),
        frame=_count(sidecar["input"]["frame"]),
        input_sha256=_text(sidecar["input"]["sha256"]),
        weights_sha256=_text(model["weights_sha256"]),
        warnings=" ".join(map(_text, sidecar.get("warnings") or ())),
        convergence=_text(sidecar.get("status")),
        residual=_largest_residual(sidecar.get("residuals"), eigenvalues),
        trace_error=_number(sidecar.get("trace_error")),
        stopped=_text(sidecar.get("stopped")),
        saturation=_number(saturation.get("nats")),
        saturated=_YES_NO[saturation.get("saturated")],
        locality_is_lower_bound=_YES_NO[sidecar.get("locality_is_lower_bound")],
        coordinates=coordinate_rows(sidecar),
        **volume_fields(sidecar),
    )


def write_table(output: Path, rows: Sequence[CaseRow]) -> dict[str, str]:
    """Write cases.csv, with the columns COLUMNS and those of labels (`run.labels`), and cases.parquet, with all of SCHEMA; each
    whole or absent; and coordinates.csv where coordinates were asked for. Returns the hex SHA-256 of each by its name."""
    files = {"cases.csv": _csv(rows), "cases.parquet": _parquet(rows)}
    written = {name: atomic.write_bytes(output / name, content, root=output) for name, content in files.items()}
    return written | write_coordinates(output, [(row.case, row.coordinates) for row in rows])


def write_run(output: Path, content: Mapping[str, Any]) -> None:
    """Write run.json, whole or absent; its last entry, SEAL, is the SHA-256 of the file without that entry (`io.seal`)."""
    atomic.write_bytes(output / "run.json", sealed(content, SEAL), root=output)


def _csv(rows: Sequence[CaseRow]) -> bytes:
    text = io.StringIO()
    labels = tuple(map(_writable, label_columns(map(vars, rows))))
    writer = csv.DictWriter(text, (*COLUMNS, *labels), lineterminator="\n")
    quoting = csv.DictWriter(text, (*COLUMNS, *labels), lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writeheader()
    for row in rows:
        fields = {name: _writable(getattr(row, name)) for name in COLUMNS} | label_values(vars(row), labels)
        lone_return = any(isinstance(value, str) and "\r" in value for value in fields.values())
        (quoting if lone_return else writer).writerow(fields)  # Python before 3.13 does not quote it, and readers end a row there
    return text.getvalue().encode("utf-8")


def _parquet(rows: Sequence[CaseRow]) -> bytes:
    """The table as Parquet; an empty text becomes null in columns that allow it."""
    columns = {}
    for field in SCHEMA:
        values = [_writable(getattr(row, field.name)) for row in rows]
        columns[field.name] = [None if value == "" and field.nullable else value for value in values]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pydict(columns, schema=SCHEMA), buffer)
    return buffer.getvalue()


def _writable(value: Any) -> Any:
    """Texts in UTF-8; bytes of a file name that is not UTF-8 are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, tuple):
        return [_writable(item) for item in value]
    return value


_YES_NO = {True: "yes", False: "no", None: ""}
_NORMS = ("input", "high", "low", "sensitivity")


def _channels(tied: Mapping[str, Any] | None) -> str:
    if tied is None:
        return ""
    return "each" if tied["factors"] is None else "tied"


def _norms_of_files(files: Iterable[Mapping[str, Any]]) -> dict[str, float | None]:
    """L2 norm of each map over all of its channels, one file each; None if one is not finite."""
    found: dict[str, list[float | None]] = {}
    for file in files:
        found.setdefault(MapContent.of(file).whole.label, []).append(_number(file["norm"]))
    return {content: _root_sum_square(norms) for content, norms in found.items()}


def _root_sum_square(norms: Iterable[float | None]) -> float | None:
    known = list(norms)
    finite = [norm for norm in known if norm is not None]
    return _number(math.hypot(*finite)) if len(finite) == len(known) else None


def _largest_residual(residuals: Any, eigenvalues: Numbers) -> float | None:
    """The largest residual as a share of its eigenvalue; None where the sidecar states none."""
    known = zip(_numbers(residuals) or (), eigenvalues, strict=False)
    return max((one / value for one, value in known if one is not None and value), default=None)


def _number(value: Any) -> float | None:
    """A finite number; None for null, NaN and infinity."""
    if value is None:
        return None
    if isinstance(value, (bool, str)):
        raise TypeError(f"{value!r} is not a number")
    return float(value) if math.isfinite(value) else None


def _numbers(values: Any) -> Numbers | None:
    return None if values is None else tuple(_number(value) for value in values)


def _count(value: Any) -> int | None:
    number = _number(value)
    if number is None:
        return None
    if number != int(number) or abs(number) > LARGEST_WHOLE:
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _text(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value or ""
