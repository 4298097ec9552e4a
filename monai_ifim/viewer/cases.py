"""Cases of a run for the viewer: their layers, and the texts of the side panel.

The viewer's process loads VTK and not torch, so sidecars are read here as plain JSON.
"""

from __future__ import annotations

import gzip
import json
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monai_ifim.display.asked import asked_text
from monai_ifim.display.numbers import NOT_AVAILABLE, duration, number, percent, probability, sizes, steps, unit_text, with_error
from monai_ifim.display.saturation import is_saturated, saturation_sentence
from monai_ifim.display.vocabulary import (
    COMPONENTS_KEPT,
    CONVERGENCE,
    DECOMPOSED,
    ERROR_BOUND,
    GRID,
    HEAD,
    HOLDS_UP_TO,
    METHOD,
    TOTAL_SENSITIVITY,
    WEIGHTS,
)
from monai_ifim.io.maps import MapContent
from monai_ifim.io.older_sidecars import up_to_date

NIFTI_HEADER = 348  # bytes
MOST_ROWS = 8  # of the tables of answers and of the spectrum
LONGEST_CAUSE = 200  # characters of Python's own message about a damaged sidecar

Kind = Literal["image", "sensitivity", "signed"]


class ViewerError(ValueError):
    """The viewer cannot start or cannot show a case; the message names the cure."""


@dataclass(frozen=True)
class ViewedLayer:
    """One volume file of a case. title: its name on the page, as in the scenes for 3D Slicer; window: low and high end of the
    stored values; a stored value times `scale` is in `unit`; muted: nothing moves the answer."""

    map: MapContent
    title: str
    file: Path
    window: tuple[float, float]
    unit: str
    scale: float = 1.0
    muted: bool = False

    @property
    def content(self) -> str:
        """Its name, unique in the case, for example "eigenvector 2, channel 3"."""
        return self.map.label

    @property
    def kind(self) -> Kind:
        """Its colours: signed about zero, from zero upwards, or grey as an image, as are maps that are no findings."""
        if self.muted:
            return "image"
        if self.map.kind in ("high", "eigenvector"):
            return "signed"
        return "sensitivity" if self.map.saved_as == "sensitivity" else "image"


@dataclass(frozen=True)
class ViewedCase:
    """A case: possible backgrounds and overlays, and its sidecar. has_world: False for photographs, which have no mm."""

    name: str
    backgrounds: tuple[ViewedLayer, ...]
    overlays: tuple[ViewedLayer, ...]
    has_world: bool
    sidecar: Mapping[str, Any]


def viewable_cases(output: Path) -> tuple[str, ...]:
    """Names of the complete cases in OUT, sorted; raises ViewerError if there are none."""
    if not output.is_dir():
        raise ViewerError(f"{output}: no such folder; name the OUT of an earlier `monai-ifim decompose ... --output OUT`.")
    names = sorted(path.parent.name for path in output.glob("*/*_ifim.json") if path.name == f"{path.parent.name}_ifim.json")
    if names:
        return tuple(names)
    deeper = sorted({path.parent.parent.name for path in output.glob("*/*/*_ifim.json")})
    cure = f"choose one of the runs in it: {', '.join(deeper)}." if deeper else "run `monai-ifim decompose` first."
    raise ViewerError(f"{output}: holds no case (a folder CASE with CASE_ifim.json); {cure}")


def read_case(output: Path, name: str) -> ViewedCase:
    """Read the sidecar of a case. name: one of `viewable_cases`; raises ViewerError for a damaged sidecar."""
    sidecar_file = output / name / f"{name}_ifim.json"
    with _damage_as_viewer_error(sidecar_file.name):
        sidecar = up_to_date(json.loads(sidecar_file.read_text(encoding="utf-8")))
        layers = [_layer(sidecar_file.parent, sidecar, entry) for entry in sidecar["files"]]
        has_world = sidecar["input"]["reader"] != "PILReader"
    scans, inputs = ([layer for layer in layers if layer.map.kind == kind] for kind in ("source", "input"))
    overlays = sorted((layer for layer in layers if layer.map.kind in _ORDER), key=_rank)
    return ViewedCase(name, (*scans, *inputs), tuple(overlays), has_world, sidecar)


@contextmanager
def _damage_as_viewer_error(file: str) -> Iterator[None]:
    """Turn the exceptions that a damaged sidecar causes into ViewerError."""
    try:
        yield
    except ViewerError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:LONGEST_CAUSE]
        raise ViewerError(f"{file}: not a readable sidecar ({what}); run the case again.") from error


def check_whole(path: Path) -> None:
    """Raise ViewerError for a missing or truncated file, which 3D Slicer's reader would show as zeros without an error.

    Compares the size stated at the end of the gzip file (RFC 1952) with that of the NIfTI-1 header.
    """
    try:
        with gzip.open(path) as file:
            header = file.read(NIFTI_HEADER)
        with path.open("rb") as raw:
            raw.seek(-4, 2)
            (stated,) = struct.unpack("<I", raw.read(4))
        order = "<" if struct.unpack("<i", header[:4])[0] == NIFTI_HEADER else ">"
        sizes = struct.unpack(f"{order}8h", header[40:56])
        (bits,) = struct.unpack(f"{order}h", header[72:74])
        offset = int(struct.unpack(f"{order}f", header[108:112])[0])
    except FileNotFoundError as error:
        raise ViewerError(f"{path.name}: missing; run the case again.") from error
    except (OSError, EOFError, zlib.error, struct.error, ValueError, OverflowError) as error:  # the last two: a damaged offset
        raise ViewerError(f"{path.name}: cut short or damaged ({error}); run the case again.") from error
    asked = offset + math.prod(max(1, size) for size in sizes[1 : sizes[0] + 1]) * bits // 8
    if stated != asked % 2**32:
        raise ViewerError(f"{path.name}: cut short or damaged; run the case again.")


def facts(case: ViewedCase) -> dict[str, Any]:
    """Rows of the side panel: answer, spectrum and settings of a case; raises ViewerError for a damaged sidecar."""
    with _damage_as_viewer_error(f"{case.name}_ifim.json"):
        return _facts(case.sidecar)


def _facts(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    answers, eigenvalues = _answers(sidecar["prediction"]), _finite(sidecar.get("eigenvalues") or [])
    return {
        "answer": sidecar["prediction"].get("class"),
        "answers": answers[:MOST_ROWS],
        "saturated": saturation_sentence(sidecar["saturation"]["nats"]) if is_saturated(sidecar) else "",
        "answers_left": max(0, len(answers) - MOST_ROWS),
        "spectrum": _spectrum(eigenvalues, sidecar.get("trace") or 0.0)[:MOST_ROWS],
        "spectrum_left": max(0, len(eigenvalues) - MOST_ROWS),
        "spectrum_unit": unit_text(sidecar["units"]["eigenvalues"]),
        "settings": [{"name": name, "text": text} for name, text in _settings(sidecar)],
    }


_ORDER = ("sensitivity", "high", "low", "eigenvector", "sensitivity_error")


def _rank(layer: ViewedLayer) -> tuple[int, int, int]:
    """Sensitivity first, then high, low and the eigenvectors by their numbers."""
    return _ORDER.index(layer.map.kind), layer.map.component or 0, layer.map.channel


def _title(content: MapContent, sidecar: Mapping[str, Any]) -> str:
    channel = "" if content.channel == 1 else f", channel {content.channel}"
    component, title = content.component, content.title + channel
    if component is None:
        return title
    rows = _spectrum(_finite(sidecar.get("eigenvalues") or []), sidecar.get("trace") or 0.0)
    share = rows[component - 1]["share"] if component <= len(rows) else ""
    return f"{title} ({share} of the sensitivity)" if share else title


def _layer(folder: Path, sidecar: Mapping[str, Any], entry: Mapping[str, Any]) -> ViewedLayer:
    content = MapContent.of(entry)
    unit = unit_text(entry["unit"] if content.component is None else sidecar["units"]["eigenvectors"])
    scale = float(entry.get("scale", 1.0))
    return ViewedLayer(
        content, _title(content, sidecar), _inside(folder, entry["file"]), _window(entry), unit, scale, is_saturated(sidecar)
    )


def _inside(folder: Path, name: str) -> Path:
    """Path of a file named by the sidecar; a sidecar from elsewhere must not lead out of the folder of the case."""
    if Path(name).name != name or "\\" in name or name in ("", ".", "..") or not name.endswith(".nii.gz"):
        raise ViewerError(f"{folder.name}: its sidecar names {name!r}, which is not a volume in its folder; run the case again.")
    return folder / name


def _window(entry: Mapping[str, Any]) -> tuple[float, float]:
    if not entry.get("window"):
        raise ViewerError(
            f"{entry['file']}: its sidecar gives no display window, as one of an earlier version; run the case again with "
            "--overwrite."
        )
    low, high = entry["window"]
    return float(low), float(high)


def _answers(prediction: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Probabilities, the likeliest first, with bars; or predicted values in the order of the network."""
    kind, values = next(((name, part) for name, part in prediction.items() if isinstance(part, Mapping)), ("", {}))
    known = [(name, float(value)) for name, value in values.items() if isinstance(value, (int, float)) and math.isfinite(value)]
    if "probability" not in kind:
        return [{"name": name, "text": number(value), "bar": 0} for name, value in known]
    known.sort(key=lambda pair: -pair[1])
    return [{"name": name, "text": probability(value), "bar": _bar(value, 1.0)} for name, value in known]


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _spectrum(eigenvalues: Sequence[float], trace: float) -> list[dict[str, Any]]:
    largest = max(eigenvalues, default=0.0)
    return [
        {
            "name": str(i),
            "text": number(value),
            "share": percent(value / trace) if trace > 0 else "",
            "bar": _bar(value, largest),
        }
        for i, value in enumerate(eigenvalues, start=1)
    ]


def _bar(part: float, whole: float) -> float:
    """Length of a bar, from 0 to 100."""
    return 100 * min(max(part / whole, 0.0), 1.0) if whole > 0 else 0.0


def _trace(sidecar: Mapping[str, Any]) -> str:
    return with_error(sidecar.get("trace"), sidecar.get("trace_error"))


def _steps(sidecar: Mapping[str, Any]) -> list[str]:
    return steps(
        *(sidecar.get(name) or [] for name in ("locality_radius", "locality_share", "locality_rms")),
        at_least=sidecar.get("locality_is_lower_bound") is True,
    )


def _settings(sidecar: Mapping[str, Any]) -> list[tuple[str, str]]:
    model, source = sidecar["model"], sidecar["input"]
    found = [
        ("Model", f"{model.get('bundle')} {model.get('version') or ''}".strip()),
        (f"{WEIGHTS.title} (SHA-256)", str(model.get("weights_sha256") or NOT_AVAILABLE)[:16]),
        (HEAD.title, str(model.get("head"))),
        (DECOMPOSED.title, asked_text(sidecar.get("answer"), str(model.get("head"))) or NOT_AVAILABLE),
        (METHOD.title, str(sidecar.get("method"))),
        (COMPONENTS_KEPT.title, f"{sidecar.get('rank')} ({percent(sidecar.get('energy_kept'))} of the sensitivity)"),
        (TOTAL_SENSITIVITY.title, f"{_trace(sidecar)} {unit_text(sidecar['units']['eigenvalues'])}"),
        (CONVERGENCE.title, str(sidecar.get("status"))),
        (HOLDS_UP_TO.title, "; ".join(_steps(sidecar)) or NOT_AVAILABLE),
        (ERROR_BOUND.title, number(sidecar.get("error_bound"))),
        (GRID.title, str(sidecar["space"]["name"])),
        ("Input", sizes(source.get("shape", []))),
        ("Resampled", "yes" if source.get("resampled") else "no"),
        ("Computed in", f"{duration(sidecar.get('seconds'))} on {sidecar.get('device')}, {sidecar.get('dtype')}"),
        ("Made by", f"monai_ifim {sidecar.get('generator', {}).get('version', '')}"),
    ]
    return [(name, text) for name, text in found if text not in ("None", NOT_AVAILABLE)]
