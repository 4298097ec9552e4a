"""The card of a case on the page: answer, spectrum, pictures, numbers and files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from monai_ifim.core.decomposition import status_of
from monai_ifim.display import numbers
from monai_ifim.display import vocabulary as term
from monai_ifim.display.saturation import saturation_sentence
from monai_ifim.display.windows import ROUNDING
from monai_ifim.io.grids import on
from monai_ifim.report.cohort.listing import CaseList
from monai_ifim.report.cohort.pictures import CasePictures, planes_path
from monai_ifim.report.cohort.planes import PictureGrid
from monai_ifim.report.cohort.records import Cohort
from monai_ifim.report.cohort.sensitivities import SensitivityChart, charts_of, sensitivity_chart
from monai_ifim.report.cohort.spectrum import SpectrumDrawing, draw_spectrum
from monai_ifim.report.cohort.tables import case_anchor, case_link, finding_text
from monai_ifim.report.cohort.volumes import VolumeTable, volume_table
from monai_ifim.report.pages.texts import shortened, words
from monai_ifim.run.coordinate_table import CoordinateRow
from monai_ifim.run.labels import are_independent
from monai_ifim.run.sentences import step_sentence

__all__ = ["CaseCard", "OutputBar", "case_cards", "with_pictures"]

MOST_OUTPUTS = 8  # classes that are listed, the likeliest first
MOST_LABELS = 12  # independent labels that are listed; the others are folded
MOST_FOLDED = 300  # of these
MOST_COMPONENTS = 8  # rows of the table of the spectrum
MOST_FILES = 40
NOT_CONVERGED = status_of(converged=False)
_MAPS = ("source", "input", "labels", "high", "low", "sens", "eigen")
FILE_ORDER = (".mrml", ".mrb", "_ifim.json", *(f"_ifim_{name}" for name in _MAPS))
FILE_NAMES = {".mrml": "scene for 3D Slicer", ".mrb": "scene for 3D Slicer in one file", "_ifim.json": "sidecar"}
SUFFIXES = (".mrml", ".mrb", ".json", ".nii.gz", ".dcm")

CHANNELS = {
    "tied": "one grey image, of which the preprocessing makes the channels that the network takes",
    "each": "each channel has maps of its own",
}
_LIKELIEST = "likeliest of independent labels: each has a probability of its own, and several or none may hold"

CaseFields = Mapping[str, Any]


@dataclass(frozen=True)
class OutputBar:
    """One output of the network: name, probability or predicted value, and the length of its bar in percent (None: no bar)."""

    name: str
    text: str
    percent: float | None


@dataclass(frozen=True)
class CaseCard:
    """Texts and drawings of one case. no_pictures: the reason if there are none; warnings: what was guessed in reading the input;
    saturated: what it means that nothing moves the answer, empty where something does; answer_note: what the answer is one of;
    sentence: how far a change moves it; decomposed: which part of it; outputs_folded: further labels with their probabilities;
    components: rows of number, eigenvalue, share of the trace and the step up to which it holds; volumes: of labels, where these
    are the answer; sensitivities: to named coordinates."""

    anchor: str
    name: str
    status: str
    answer: str
    answer_note: str
    decomposed: str
    confidence: str
    sentence: str
    outputs: tuple[OutputBar, ...]
    outputs_head: str
    outputs_rest: str
    outputs_folded: str
    notes: tuple[str, ...]
    saturated: str
    warnings: str
    spectrum: SpectrumDrawing | None
    components: tuple[tuple[str, str, str, str], ...]
    components_rest: str
    volumes: VolumeTable | None
    sensitivities: SensitivityChart | None
    facts: tuple[tuple[str, str], ...]
    files: tuple[Markup, ...]
    folder: Markup
    pictures: PictureGrid | None
    no_pictures: str


def case_cards(output: Path, cohort: Cohort, listed: CaseList, pictures: CasePictures) -> list[CaseCard]:
    """One card per case, in the order of the run."""
    notes: dict[str, list[str]] = {}
    for finding in cohort.outliers.to_dict("records"):
        notes.setdefault(finding["case"], []).append(finding_text(finding))
    positions, moved = enumerate(listed.cases, start=1), charts_of(output)
    return [
        _card(output, position, case, pictures, notes.get(case["case"], ()), moved.get(case["case"], ()))
        for position, case in positions
    ]


def _card(
    output: Path,
    position: int,
    case: CaseFields,
    pictures: CasePictures,
    notes: Sequence[str],
    moved: Sequence[CoordinateRow],
) -> CaseCard:
    name, failed = case["case"], case["status"] == "failed"
    independent = are_independent(words(case["head"]), len(_numbers(case["probabilities"])))
    outputs, rest, folded = ((), "", "") if failed else _outputs(case, independent)
    eigenvalues = [] if failed else _numbers(case["eigenvalues"])
    return CaseCard(
        anchor=case_anchor(position),
        name=shortened(name),
        status=case["status"],
        answer="" if failed else shortened(words(case["prediction"])),
        answer_note=_LIKELIEST if independent and not failed else "",
        decomposed="" if failed else shortened(words(case["decomposed"])),
        confidence="" if failed or pd.isna(case["confidence"]) else numbers.probability(case["confidence"]),
        sentence="" if failed or case["saturated"] == "yes" else step_sentence(case),
        outputs=outputs,
        outputs_head=_outputs_head(case),
        outputs_rest=rest,
        outputs_folded=folded,
        notes=() if failed else tuple(notes),
        saturated=saturation_sentence(_number(case["saturation"])) if words(case["saturated"]) == "yes" else "",
        warnings="" if failed else words(case["warnings"]),
        spectrum=draw_spectrum(eigenvalues),
        components=() if failed else _components(case, eigenvalues),
        components_rest=_more(len(eigenvalues) - MOST_COMPONENTS, "component", "in the sidecar"),
        volumes=None if failed else volume_table(case),
        sensitivities=sensitivity_chart(case, moved),
        facts=_failure_facts(case) if failed else _facts(case),
        files=() if failed else _files(output / name, name),
        folder=_folder(name),
        pictures=pictures.grids.get(name),
        no_pictures=_no_pictures(output, case, pictures),
    )


def with_pictures(card: CaseCard, output: Path, case: str, grid: PictureGrid, root: str) -> CaseCard:
    """The card of a case for a page of its own; root: the folder of the run, relative to that page."""
    return replace(card, pictures=grid, no_pictures="", files=_files(output / case, case, root), folder=_folder(case, root))


def _folder(case: str, root: str = "./") -> Markup:
    return case_link(case, text="folder of the case", root=root)


def _outputs(case: CaseFields, independent: bool) -> tuple[tuple[OutputBar, ...], str, str]:
    """The likeliest classes or the first predicted values, a text that counts the others, and one that lists them: of independent
    labels, each of which has an answer of its own."""
    names = [] if case["class_names"] is None else [words(name) for name in case["class_names"]]
    probabilities = _numbers(case["probabilities"])
    values = probabilities or _numbers(case["means"])
    pairs = list(zip(names, values, strict=False))
    if not probabilities:
        shown = [OutputBar(shortened(name), numbers.number(value), None) for name, value in pairs[:MOST_OUTPUTS]]
        return tuple(shown), _more(len(pairs) - len(shown), "output", "in cases.parquet"), ""
    pairs.sort(key=lambda pair: math.inf if pair[1] is None else -pair[1])
    most = MOST_LABELS if independent else MOST_OUTPUTS
    shown = [
        OutputBar(shortened(name), numbers.probability(value), None if value is None else round(100 * value, 2))
        for name, value in pairs[:most]
    ]
    if not independent:
        return tuple(shown), _more(len(pairs) - most, "class", "in cases.parquet"), ""
    folded = pairs[most : most + MOST_FOLDED]
    listed = "; ".join(f"{shortened(name)} {numbers.probability(value)}" for name, value in folded)
    rest = _more(len(pairs) - most, "label", "in cases.parquet") if len(pairs) > most + MOST_FOLDED else ""
    return tuple(shown), rest, listed


def _outputs_head(case: CaseFields) -> str:
    """What the values of the outputs are."""
    if not len(_numbers(case["probabilities"])):
        unit = words(case["means_unit"])
        volume = f"{term.EXPECTED_VOLUME.label} ({unit})" if unit else term.EXPECTED_VOLUME.label
        return volume if words(case["head"]).startswith("volumes") else "predicted value"
    mean = words(case["head"]).startswith("voxelwise")
    return f"mean {term.PROBABILITY.label} of a voxel" if mean else term.PROBABILITY.label


def _components(case: CaseFields, eigenvalues: Sequence[float | None]) -> tuple[tuple[str, str, str, str], ...]:
    trace = _number(case["trace"])
    steps = numbers.steps(
        *(_numbers(case[name]) for name in ("locality_radius", "locality_share", "locality_rms")),
        at_least=words(case["locality_is_lower_bound"]) == "yes",
    )
    rows = []
    for i, value in enumerate(eigenvalues[:MOST_COMPONENTS]):
        share = numbers.percent(value / trace) if trace and value is not None else numbers.NOT_AVAILABLE
        rows.append((str(i + 1), numbers.number(value), share, steps[i] if i < len(steps) else numbers.NOT_AVAILABLE))
    return tuple(rows)


def _facts(case: CaseFields) -> tuple[tuple[str, str], ...]:
    kept = "" if pd.isna(case["energy_kept"]) else f", {numbers.percent(float(case['energy_kept']))} of the sensitivity"
    rank = "" if pd.isna(case["rank"]) else f"{numbers.counted(float(case['rank']), 'component')}{kept}"
    products = "" if pd.isna(case["jacobian_products"]) else f", {numbers.counted(float(case['jacobian_products']), 'product')}"
    method = words(case["method"])
    unit = words(case["unit"])
    said = {
        term.INPUT.label: words(case["input"]),
        "volume of it": "" if pd.isna(case["frame"]) else f"{int(case['frame'])}, counted from 0",
        term.STATUS.label: "kept from an earlier run" if case["status"] == "kept" else case["status"],
        term.COMPONENTS_KEPT.label: rank,
        term.CONVERGENCE.label: _convergence(case),
        term.TOTAL_SENSITIVITY.label: _trace(case),
        term.LEADING.label: _known(case["eigenvalue"], f" {term.PER_UNIT}"),
        term.SIZE_HIGH.label: _known(case["norm_high"], _zero_or_units(case)),
        term.SIZE_LOW.label: _known(case["norm_low"], f" units {_of_norms(case)}"),
        term.UNIT.label: unit,
        term.CHANNELS.label: CHANNELS.get(words(case["channels"]), ""),
        term.GRID.label: words(case["space"]),
        term.HEAD.label: words(case["head"]),
        term.DECOMPOSED.label: words(case["decomposed"]) or "the whole answer",
        term.METHOD.label: f"{method}{products}" if method else "",
        term.DERIVATIVES.label: _verification(case),
        term.SECONDS.label: "" if pd.isna(case["seconds"]) else numbers.duration(float(case["seconds"])),
        "input, SHA-256": words(case["input_sha256"]),
        f"{term.WEIGHTS.label}, SHA-256": words(case["weights_sha256"]),
    }
    return tuple((name, shortened(text)) for name, text in said.items() if text)


def _convergence(case: CaseFields) -> str:
    """How the iteration ended; empty for a method without one."""
    residual = None if pd.isna(case["residual"]) else float(case["residual"])
    share = f"{term.RESIDUAL.label} {numbers.percent(residual)}" if residual else ""
    if words(case["convergence"]) != NOT_CONVERGED:
        return f"converged, {share}" if share else ""
    why = "by its limit of time" if words(case["stopped"]) == "request" else "after its last step"
    return f"NOT CONVERGED, ended {why}, {share}: the components are the best so far"


def _trace(case: CaseFields) -> str:
    if pd.isna(case["trace"]):
        return ""
    error = None if pd.isna(case["trace_error"]) else float(case["trace_error"])
    return f"{numbers.with_error(float(case['trace']), error)} {term.PER_UNIT}"


def _verification(case: CaseFields) -> str:
    """How the derivatives compare with differences of the network's output."""
    outcome, by = words(case["verification"]), words(case["verified_by"])
    if outcome in ("", "never"):
        return "not compared with differences of the output" if outcome else ""
    where = "on this image" if by == "itself" else f"on {by}"
    if outcome == "inconclusive":
        return f"differences of the output say nothing, tried {where}"
    deviation = "" if pd.isna(case["deviation"]) else f" within {numbers.percent(float(case['deviation']))}"
    if outcome == "agrees":
        return f"agree with differences of the output{deviation}, compared {where}"
    share = "" if pd.isna(case["deviation"]) else f" by {numbers.percent(float(case['deviation']))}"
    return f"DISAGREE with differences of the output{share}, compared {where}: the sensitivity is not that of its answer"


def _of_norms(case: CaseFields) -> str:
    """The grid that the norms belong to, in words."""
    grid = words(case["norms_grid"])
    return on("network" if grid == "network" else "input") if grid else "in the files"


def _zero_or_units(case: CaseFields) -> str:
    """Unit after the norm of high, with a note if single precision cannot tell it from zero."""
    high, whole = case["norm_high"], case["norm_input"]
    rounding = not pd.isna(high) and not pd.isna(whole) and high < ROUNDING * whole
    said = f" units {_of_norms(case)}"
    return f"{said}, zero to rounding: more or less contrast does not move the answer" if rounding else said


def _failure_facts(case: CaseFields) -> tuple[tuple[str, str], ...]:
    said = {term.INPUT.label: words(case["input"]), "reason": words(case["reason"])}
    return tuple((name, shortened(text)) for name, text in said.items() if text)


def _files(folder: Path, name: str, root: str = "./") -> tuple[Markup, ...]:
    """Links to the files of a case, scenes first."""
    try:
        present = [entry.name for entry in os.scandir(folder) if entry.name.startswith(name) and entry.name.endswith(SUFFIXES)]
    except (OSError, ValueError):  # the folder is missing, or the name is impossible for a file
        return ()
    wanted = sorted(present, key=lambda file: (_rank(file[len(name) :]), file))
    return tuple(case_link(name, file, _label(file[len(name) :]), root) for file in wanted[:MOST_FILES])


def _rank(ending: str) -> int:
    return next((i for i, start in enumerate(FILE_ORDER) if ending.startswith(start)), len(FILE_ORDER))


def _label(ending: str) -> str:
    """The end of a file's name after that of the case: high.nii.gz."""
    return FILE_NAMES.get(ending) or ending.removeprefix("_ifim").lstrip("_").replace("_", ", ")


def _no_pictures(output: Path, case: CaseFields, pictures: CasePictures) -> str:
    name = case["case"]
    if case["status"] == "failed" or name in pictures.grids:
        return ""
    if name in pictures.unreadable:
        return pictures.unreadable[name]
    if name in pictures.beside:
        return "The pictures are on a page of their own."
    if name in pictures.left_out:
        return "The pictures are left out to keep this page small. The files of the case are linked here."
    return f"There are no pictures of this case ({planes_path(output, name).name} is missing): run the case again to make them."


def _more(number: int, what: str, where: str) -> str:
    return f"and {numbers.counted(number, f'more {what}')}, {where}" if number > 0 else ""


def _known(value: Any, unit: str) -> str:
    return "" if pd.isna(value) else f"{numbers.number(float(value))}{unit}"


def _numbers(values: Any) -> list[float | None]:
    """The values, None for one that is missing or not finite."""
    return [] if values is None else [_number(value) for value in values]


def _number(value: Any) -> float | None:
    return None if pd.isna(value) or not math.isfinite(value) else float(value)
