"""Compares two decompositions of a case number by number and map by map, each with its stated tolerance."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_ifim.display.vocabulary import ANSWER, BY_COMPONENT, COMPONENTS_KEPT, HOLDS_UP_TO, TOTAL_SENSITIVITY
from monai_ifim.io import InputError, MapContent
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.errors import innermost
from monai_ifim.io.geometry import same_grid

Verdict = Literal["same", "within", "differs"]
NUMBERS, MAPS, RADII = 1e-3, 1e-2, 5e-2  # relative; float32 on other hardware, TF32 convolutions among it, stays inside
HALF_PRECISION = 20.0  # how many times that bfloat16 and float16 may differ
UNSEEN = float(np.finfo(np.float64).eps)  # for what may well be equal, but not seen to be to the last bit
TIED = 1e-2  # of the leading eigenvalue: closer eigenvectors may turn into each other

Values = npt.NDArray[Any]
Sidecar = Mapping[str, Any]


@dataclass(frozen=True)
class Quantity:
    """One result, as recorded and as repeated. difference: relative, 0 only where all is equal to the last bit; infinite where
    the two cannot be subtracted. allowed: up to which they agree."""

    name: str
    recorded: str
    repeated: str
    difference: float
    allowed: float

    @property
    def verdict(self) -> Verdict:
        """Equal to the last bit ("same"), "within" the tolerance, or "differs"."""
        if self.difference == 0:
            return "same"
        return "within" if self.difference <= self.allowed else "differs"


@dataclass(frozen=True)
class RecordedCase:
    """A finished case: its folder and its sidecar."""

    folder: Path
    sidecar: Sidecar

    def files(self, content: MapContent) -> list[Mapping[str, Any]]:
        """The sidecar's entries for the files of a map, one per channel."""
        return [file for file in self.sidecar["files"] if MapContent.of(file).whole == content.whole]

    def contents(self) -> list[MapContent]:
        """The maps that were written, in their order."""
        return list(dict.fromkeys(MapContent.of(file).whole for file in self.sidecar["files"]))

    def volume(self, content: MapContent) -> Values | None:
        """True values [channel, *spatial] as float64; None where a file is not beside the sidecar. Raises InputError."""
        volumes = []
        for file in self.files(content):
            path = self.folder / str(file["file"])
            if not is_plain_name(file["file"]) or not path.is_file():
                return None
            try:
                volumes.append(np.asarray(nib.load(path).dataobj, dtype=np.float64) * float(file["scale"]))
            except Exception as error:  # a damaged file fails in as many ways as gzip and NIfTI have
                raise InputError(
                    f"{path.name}: cannot be read ({innermost(error)}), so it is not compared: decompose the image again."
                ) from error
        return np.stack(volumes) if volumes and len({volume.shape for volume in volumes}) == 1 else None


def compare(recorded: RecordedCase, repeated: RecordedCase) -> list[Quantity]:
    """Every result of `recorded` beside that of `repeated`; maps that are not beside their sidecar by their norms.

    Raises InputError where a recorded file is damaged, KeyError, TypeError or ValueError where a sidecar is.
    """
    wide = _widening(recorded.sidecar)
    found = list(_numbers(recorded.sidecar, repeated.sidecar, wide))
    for content in recorded.contents():
        found.append(_map(content, recorded, repeated, wide))
    return found


def _widening(sidecar: Sidecar) -> Mapping[str, float]:
    """Factors on the tolerances of numbers, of maps, and of quantities that fall off exponentially with the distance between
    logits, by the method and precision of the recorded case."""
    factor = HALF_PRECISION if "float16" in f"{sidecar['settings']['precision']} {sidecar['dtype']}" else 1.0
    loose = 0.0 if sidecar["method"] == "exact" else float(sidecar["settings"]["tolerance"])
    numbers, logits = max(factor * NUMBERS, 2 * loose), sidecar["prediction"].get("logits") or [0.0]
    information = numbers * max(1.0, max(logits) - min(logits))  # ~ exp(-distance), which is off by `numbers` of itself
    return {"numbers": numbers, "information": information, "maps": max(factor * MAPS, 2 * math.sqrt(loose))}


def _numbers(recorded: Sidecar, repeated: Sidecar, allowed: Mapping[str, float]) -> Iterator[Quantity]:
    first, second = recorded["prediction"], repeated["prediction"]
    same = first["class"] == second["class"]
    if first["class"] is not None:
        yield Quantity(ANSWER.label, str(first["class"]), str(second["class"]), 0.0 if same else math.inf, 0.0)
    for kind, values in first.items():
        if isinstance(values, Mapping):
            scale = max(map(abs, values.values()), default=0.0) if kind == "mean" else 1.0
            yield _sequence(kind.replace("_", " "), list(values.values()), _of(second, kind), scale, allowed["numbers"])
    equal = recorded["rank"] == repeated["rank"]
    yield Quantity(COMPONENTS_KEPT.label, str(recorded["rank"]), str(repeated["rank"]), 0.0 if equal else math.inf, 0.0)
    leading = max(recorded["eigenvalues"], default=0.0)
    yield _sequence(BY_COMPONENT.label, recorded["eigenvalues"], repeated["eigenvalues"], leading, allowed["information"])
    yield _sequence(
        TOTAL_SENSITIVITY.label, [recorded["trace"]], [repeated["trace"]], abs(recorded["trace"] or 0.0), allowed["information"]
    )
    radii = recorded["locality_radius"]
    if radii is not None:
        known = max((radius for radius in radii if radius is not None), default=0.0)
        yield _sequence(HOLDS_UP_TO.label, radii, repeated["locality_radius"] or [], known, max(RADII, allowed["numbers"]))


def _of(prediction: Mapping[str, Any], kind: str) -> list[Any]:
    values = prediction.get(kind)
    return list(values.values()) if isinstance(values, Mapping) else []


def _sequence(name: str, first: Sequence[Any], second: Sequence[Any], scale: float, allowed: float) -> Quantity:
    """Largest difference relative to `scale`; the largest values are shown."""
    shown = [max((value for value in values if value is not None), default=None) for values in (first, second)]
    texts = ["-" if value is None else f"{value:.6g}" for value in shown]
    return Quantity(name, texts[0], texts[1], _distance(first, second, scale), allowed)


def _distance(first: Sequence[Any], second: Sequence[Any], scale: float) -> float:
    if list(first) == list(second):
        return 0.0
    gone = [(a is None) != (b is None) for a, b in zip(first, second, strict=False)]
    if len(first) != len(second) or any(gone) or scale <= 0:
        return math.inf
    return max(abs(a - b) for a, b in zip(first, second, strict=True) if a is not None) / scale


def _map(content: MapContent, recorded: RecordedCase, repeated: RecordedCase, allowed: Mapping[str, float]) -> Quantity:
    first, second = recorded.files(content), repeated.files(content)
    limit = max(allowed["maps"], allowed["information"]) if content.kind == "sensitivity" else allowed["maps"]
    norms = [math.hypot(*(float(file["norm"] or 0.0) for file in files)) for files in (first, second)]
    texts = (f"norm {norms[0]:.6g}", f"norm {norms[1]:.6g}" if second else "none")
    if len(first) != len(second) or not _one_grid(first[0], second[0]):
        return Quantity(content.name, texts[0], texts[1] if not second else "on another grid", math.inf, limit)
    ours, size = recorded.volume(content), _size(recorded, content)
    if ours is None:
        away = max(_distance(norms[:1], norms[1:], size), UNSEEN)
        return Quantity(f"{content.name} (norm alone)", *texts, away, limit)
    theirs = repeated.volume(content)
    if theirs is None or np.array_equal(ours, theirs):
        return Quantity(content.name, *texts, 0.0 if theirs is not None else math.inf, limit)
    rest = _rest(content, ours, theirs, repeated)
    return Quantity(content.name, *texts, max(rest / size, UNSEEN) if size > 0 else math.inf, limit)


def _one_grid(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    if list(first["shape"]) != list(second["shape"]):
        return False
    return same_grid(np.asarray(first["affine"], float), np.asarray(second["affine"], float), tuple(first["shape"]))


def _size(case: RecordedCase, content: MapContent) -> float:
    """What a difference is relative to: the norm of the image for high and low, the number of voxels for labels, else the map's
    own norm."""
    if content.kind == "labels":
        return float(sum(math.prod(file["shape"]) for file in case.files(content)))
    of = MapContent("input") if content.kind in ("high", "low") else content
    return math.hypot(*(float(file["norm"] or 0.0) for file in case.files(of)))


def _rest(content: MapContent, ours: Values, theirs: Values, repeated: RecordedCase) -> float:
    """Norm of the difference; for an eigenvector, of the part outside the span of those with nearly its eigenvalue; of labels,
    the number of voxels that differ."""
    if content.kind == "labels":
        return float((ours != theirs).sum())
    if content.component is None:
        return float(np.linalg.norm(ours - theirs))
    place = content.component - 1
    values = repeated.sidecar["eigenvalues"]
    near = [i for i, value in enumerate(values) if abs(value - values[place]) <= TIED * values[0]]
    if len(near) < 2:  # its sign may be one of rounding
        return float(min(np.linalg.norm(ours - theirs), np.linalg.norm(ours + theirs)))
    vectors = [theirs if i == place else repeated.volume(replace(content, component=i + 1)) for i in near]
    basis = np.stack([vector.ravel() for vector in vectors if vector is not None and vector.shape == ours.shape])
    weights = np.linalg.lstsq(basis @ basis.T, basis @ ours.ravel(), rcond=None)[0]
    return float(np.linalg.norm(ours.ravel() - weights @ basis))
