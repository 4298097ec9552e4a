"""What a bundle's metadata.json says of the network's outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monai_ifim.adapt.head_reading.statement import Statement

_OF_VOXELS = ("segmentation",)
_OF_IMAGES = ("classification", "classes", "class")
_NO_ANSWERS = {
    "object": "boxes or other objects",
    "dict": "boxes or other objects",
    "detection": "boxes or other objects",
    "points": "points",
    "magnitude": "an image",
    "hounsfield": "an image",
    "kspace": "an image",
    "raw": "an image",
    "noise": "an image",
    "image": "an image",
    "feature": "features",
    "deformation": "a deformation",
    "displacement": "a deformation",
}


def said_by_metadata(output: Mapping[str, Any], name: str, file: str) -> Iterator[Statement]:
    """Statements of the entry of one output, called `name`, in the metadata file.

    "probabilities" and a range of [0, 1] are passed over: most bundles state there what their postprocessing makes of logits.
    """
    kind, form = (str(output.get(key) or "").lower() for key in ("type", "format"))
    words = {f"type {kind!r}": kind, f"format {form!r}": form}
    place = f"{file}: output '{name}'"
    for said, word in words.items():
        if word in _OF_VOXELS:
            yield Statement(f"{place}, {said}", space="voxel")
        elif word in _OF_IMAGES:
            yield Statement(f"{place}, {said}", space="image")
        elif word == "logits":
            yield Statement(f"{place}, {said}", scale="logits")
    if form in _NO_ANSWERS and form != "image":
        yield Statement(f"{place}, format {form!r}", no_answer=_NO_ANSWERS[form])
    elif form == "image" and kind in _NO_ANSWERS:
        yield Statement(f"{place}, type {kind!r}, format 'image'", no_answer=_NO_ANSWERS[kind])
    elif kind in _NO_ANSWERS and kind != "image" and not form:
        yield Statement(f"{place}, type {kind!r}", no_answer=_NO_ANSWERS[kind])
    sizes = output.get("spatial_shape")
    if isinstance(sizes, list) and any(isinstance(size, str) for size in sizes):
        yield Statement(f"{place}, spatial_shape {sizes}", space="voxel", weak=True)
    names = output.get("channel_def")
    if isinstance(names, dict) and str(names.get("0", "")).strip().lower() == "background":
        yield Statement(f"{place}, channel 0 'background'", relation="exclusive", weak=True)
