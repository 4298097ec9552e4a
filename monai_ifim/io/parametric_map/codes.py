"""Codes, units, labels and descriptions of a Parametric Map, none of them from the patient's data.

Codes: DICOM PS3.16, CID 7180 (quantity of a voxel) and TID 4019 (algorithm); UCUM for units, with names of dimensionless
counts in {braces}; the private scheme 99IFIM for what no standard list has.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset

from monai_ifim.core.settings import selection
from monai_ifim.display.numbers import MINUS
from monai_ifim.display.saturation import is_saturated, saturation_sentence
from monai_ifim.io.dicom.object_kinds import LABEL
from monai_ifim.io.grids import without_grid
from monai_ifim.io.maps import MapContent
from monai_ifim.io.units import CODES, HOUNSFIELD
from monai_ifim.version import __version__

SCHEME = "99IFIM"
SIMPLE_UNIT = re.compile(r"[A-Za-z%\[\]']+")  # of UCUM
LONG_STRING = 64  # characters that DICOM's LO holds

Code = tuple[str, str, str]  # value, scheme, meaning

FISHER: Code = ("FISHER", SCHEME, "Input-dependent Fisher information")
SOURCE_IMAGE: Code = ("121322", "DCM", "Source image for image processing operation")
ALGORITHM_NAME: Code = ("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION: Code = ("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS: Code = ("111002", "DCM", "Algorithm Parameters")
NO_UNIT: Code = ("1", "UCUM", "no units")


@dataclass(frozen=True)
class MapKind:
    """A kind of map. label: for the Content Label; description: in plain words; quantity: code of what a voxel measures."""

    label: str
    description: str
    quantity: Code


KINDS = {
    "high": MapKind(
        "HIGH",
        "Part of the image that the prediction depends on",
        ("HIGH", SCHEME, "Image component within the leading Fisher subspace"),
    ),
    "low": MapKind(
        "LOW",
        "Part of the image that does not affect the prediction",
        ("LOW", SCHEME, "Image component outside the leading Fisher subspace"),
    ),
    "sensitivity": MapKind("SENS", "Sensitivity of the prediction to each voxel", ("130404", "DCM", "Saliency")),
    "sensitivity_error": MapKind(
        "SERR",
        "Standard error of the sensitivity, where that is an estimate",
        ("SENSITIVITY_ERR", SCHEME, "Standard error of the estimated sensitivity"),
    ),
    "eigenvector": MapKind(
        "EIG", "Eigenvector of the Fisher information", ("EIGENVECTOR", SCHEME, "Eigenvector of the Fisher information")
    ),
}


def coded(code: Code) -> Dataset:
    """The code as an item of a code sequence."""
    from highdicom.sr import CodedConcept

    return CodedConcept(*code)


def content_label(content: MapContent) -> str:
    """Content Label: capitals, at most 16 characters, for example IFIM_EIG01_CH02."""
    counted = "" if content.component is None else f"{content.component:02d}"
    return f"{LABEL}{KINDS[content.kind].label}{counted}" + ("" if content.channel == 1 else f"_CH{content.channel:02d}")


def content_description(content: MapContent, saturated: bool = False) -> str:
    """Content Description, for people, of at most LONG_STRING characters; saturated: nothing moves the answer."""
    if saturated:
        return f"Saturated: nothing moves the answer; {content.label}"[:LONG_STRING]
    counted = "" if content.component is None else f", number {content.component}"
    return f"{KINDS[content.kind].description}{counted}" + ("" if content.channel == 1 else f", channel {content.channel}")


def unit_of(kind: str, units: Mapping[str, str], power: int = 0) -> Code:
    """UCUM code of a map's unit, times ten to the power; units: the sidecar's."""
    intensity = CODES.get(units["maps"])
    if kind == "eigenvector":
        code = NO_UNIT
    elif kind in ("sensitivity", "sensitivity_error"):
        stated, short = units["sensitivity"], without_grid(units["sensitivity"])
        per_map_unit = short == f"nats per ({units['maps']})^2"  # else per unit of an input metric
        per_intensity = "{nat/intensity2}" if intensity is None else f"{{nat}}/{_squared(intensity)}"
        code = (
            per_intensity if per_map_unit else "{nat/step2}",
            "UCUM",
            stated if len(f"1e{power} {stated}") <= LONG_STRING else short,
        )
    elif intensity is not None:
        code = (intensity, "UCUM", units["maps"].removesuffix("s") if units["maps"] == HOUNSFIELD else units["maps"])
    else:
        code = ("{intensity}", "UCUM", f"unit of {units['maps']}")
    value, scheme, meaning = code
    return (value, scheme, _plain(meaning)) if power == 0 else (f"10*{power}.{value}", scheme, _plain(f"1e{power} {meaning}"))


def _squared(code: str) -> str:
    """UCUM code of a unit's square as a divisor; only a unit without operators takes an exponent."""
    return f"{code}2" if SIMPLE_UNIT.fullmatch(code) else f"({code})/({code})"


def derivation_description(sidecar: Mapping[str, Any]) -> str:
    """Derivation Description: the method and its reference, and what it means that an answer is saturated."""
    saturated = f" {saturation_sentence(sidecar['saturation']['nats'])}" if is_saturated(sidecar) else ""
    return _ascii(
        f"Derived by monai_ifim {__version__} from the referenced images: decomposition by the input-dependent Fisher "
        "information matrix of a trained classifier (arXiv:2606.16362). For research; not a diagnosis."
        f"{saturated}".replace(MINUS, "-")
    )


def algorithm_parameters(sidecar: Mapping[str, Any]) -> str:
    """The settings that decide the numbers, as name=value."""
    model = sidecar["model"]
    metric = sidecar.get("metric")
    preprocessing = sidecar.get("preprocessing") or {}
    stated = {
        "head": model["head"],
        "method": sidecar["method"],
        **selection(sidecar["settings"]),
        "components": sidecar["rank"],
        "metric": None if metric is None else json.dumps(metric, sort_keys=True),
        "space": sidecar["space"]["name"],
        "statistics": preprocessing.get("statistics"),
        "resolution_mm": preprocessing.get("resolution_mm"),
        "zeros_held": preprocessing.get("zeros_held"),
        "bundle": model["bundle"],
        "bundle_version": model["version"],
        "weights_sha256": model["weights_sha256"],
    }
    return _ascii("; ".join(f"{name}={value}" for name, value in stated.items() if value is not None))


def series_description(sidecar: Mapping[str, Any]) -> str:
    """Series Description: the kind of object and the model."""
    bundle = sidecar["model"]["bundle"]
    return _plain("iFIM maps" if bundle is None else f"iFIM maps, {bundle}")


def serial_number(sidecar: Mapping[str, Any]) -> str:
    """Device Serial Number, which the standard demands: the hash of the weights, which identifies the model."""
    return str(sidecar["model"]["weights_sha256"] or __version__)


def real_world_mapping(
    label: str, kind: str, sidecar: Mapping[str, Any], value_range: tuple[float, float], scale: float
) -> Dataset:
    """Real World Value Mapping (PS3.3, C.7.6.16.2.11) with unit, quantity and algorithm.

    value_range: of the stored values; scale: true over stored values, a power of ten. It is put into the unit: as a slope it
    would underflow to zero in programs that compute in float32.
    """
    from highdicom.pm import RealWorldValueMapping
    from highdicom.sr import TextContentItem

    power = round(math.log10(scale))
    unit, quantity = unit_of(kind, sidecar["units"], power), coded(KINDS[kind].quantity)
    mapping = RealWorldValueMapping(
        label, unit[2], coded(unit), value_range, scale / 10.0**power, 0.0, quantity_definition=quantity
    )
    stated = (
        (ALGORITHM_NAME, "monai_ifim"),
        (ALGORITHM_VERSION, __version__),
        (ALGORITHM_PARAMETERS, algorithm_parameters(sidecar)),
    )
    mapping.QuantityDefinitionSequence.extend(TextContentItem(coded(name), text) for name, text in stated)
    return mapping


def _plain(text: str) -> str:
    return _ascii(text)[:LONG_STRING]


def _ascii(text: str) -> str:
    """ASCII, which any character set of the patient's name includes; without backslashes, which separate values."""
    return text.encode("ascii", "replace").decode("ascii").replace("\\", "/")
