"""The slices of a case as plain data for the script that scrolls through them."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup

from monai_ifim.display import numbers
from monai_ifim.display.vocabulary import map_name, titled
from monai_ifim.display.windows import bar_shape
from monai_ifim.io.geometry import VIEWS, cut
from monai_ifim.io.segmentation import ShownLabel
from monai_ifim.io.stacks import IMAGES, MapStack, StackMap
from monai_ifim.report.cohort.colors import COLORS, color_table, colors_of
from monai_ifim.report.cohort.labels import legend, own_color

__all__ = ["SliceMode", "SliceView", "color_tables", "slice_view"]

WHOLE = 0.8  # share of an axis from which on the network's field of view counts as all of the image
MARGIN = 0.04  # of the field of view that is shown around it


@dataclass(frozen=True)
class SliceMode:
    """An entry of the switch between pictures: its key for the script, and its name."""

    key: str
    name: str


@dataclass(frozen=True)
class SliceView:
    """What the viewer of a case needs. data: JSON for its script; modes: of its switch; views: names of the planes; edges: of
    each, letters at left, right, top and bottom; framed: whether the image has a scale in mm; precision: what the values are."""

    data: str = field(repr=False)
    modes: tuple[SliceMode, ...]
    views: tuple[str, ...]
    edges: tuple[tuple[str, ...], ...]
    framed: bool
    precision: str

    @property
    def scrolls(self) -> bool:
        """False for a single slice."""
        return len(self.views) > 1

    @property
    def markup(self) -> Markup:
        """The data for a script element: no sign in it could end that."""
        return Markup(self.data)  # nosec B704 # `slice_view` leaves no such sign


def slice_view(stack: MapStack, labels: Sequence[ShownLabel], saturated: bool = False) -> SliceView:
    """The slices of a case; labels: of a segmentation, the largest first; saturated: maps are grey, and the image comes first."""
    views = _views(stack)
    names, edges = tuple(view["name"] for view in views), tuple(view.pop("edges") for view in views)
    extent, zoomed = _extent(stack)
    content = {
        "shape": stack.shape,
        "affine": None if stack.photograph else stack.affine[:3].tolist(),
        "start": stack.start,
        "extent": extent,
        "zoomed": zoomed,
        "views": views,
        "maps": [_map_record(found, saturated) for found in stack.maps],
        "labels": _labels(labels),
    }
    text = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    safe = text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return SliceView(safe, _modes(stack, saturated), names, edges, not stack.photograph, _precision(stack))


def color_tables() -> dict[str, str]:
    """The 256 colours of each table, as base64 of red, green and blue bytes."""
    return {name: base64.b64encode(color_table(name).tobytes()).decode("ascii") for name in COLORS}


def _views(stack: MapStack) -> list[dict[str, Any]]:
    cuts = {view: cut(stack.affine, view) for view in VIEWS}
    flat = [view for view, found in cuts.items() if stack.shape[found.normal] == 1][:1]
    records = []
    for view in flat or cuts:
        found = cuts[view]
        record: dict[str, Any] = {"name": "image" if stack.photograph else view, "flips": found.flips}
        record |= {"normal": found.normal, "rows": found.rows, "columns": found.columns}
        record["spacing"] = (1.0, 1.0) if stack.photograph else found.spacing
        records.append(record | {"edges": ("",) * 4 if stack.photograph else found.edges})
    return records


def _extent(stack: MapStack) -> tuple[list[tuple[int, int]], bool]:
    """First and last voxel along each axis of the field of view with a margin, and whether that is much less than the image."""
    found = []
    for (first, last), size in zip(stack.extent, stack.shape, strict=True):
        margin = round(MARGIN * (last - first + 1))
        found.append((max(0, first - margin), min(size - 1, last + margin)))
    shares = [(last - first + 1) / size for (first, last), size in zip(stack.extent, stack.shape, strict=True)]
    return found, min(shares) < WHOLE


def _map_record(found: StackMap, saturated: bool) -> dict[str, Any]:
    low, high = found.window
    return {
        "key": _key(found),
        "kind": found.kind,
        "title": _title(found),
        "unit": numbers.unit_text(found.unit),
        "colors": colors_of(found.kind, saturated),
        "window": found.window,
        "low": found.low,
        "quantum": found.quantum,
        "shape_of_bar": bar_shape(*found.beyond),
        "exact": found.exact,
        "clipped": found.clipped,
        "atStart": found.at_start,
        "marks": [numbers.number(low), numbers.number((low + high) / 2), numbers.number(high)],
        "first": found.first,
        "step": found.step,
        "shape": found.shape,
        "wide": found.wide,
        "data": base64.b64encode(found.packed).decode("ascii"),
    }


def _key(found: StackMap) -> str:
    if found.kind in IMAGES:
        return "image"
    return found.kind if found.component is None else f"{found.kind}-{found.component}"


def _title(found: StackMap) -> str:
    return titled(map_name(found.kind, found.component))


def _labels(labels: Sequence[ShownLabel]) -> dict[str, Any]:
    """Colour and name of each label, and the rows of the legend."""
    sharing = Counter(label.value for label in labels)
    known = {
        str(label.value): {
            "color": own_color(place),
            "name": label.name if sharing[label.value] == 1 else f"one of {sharing[label.value]} small labels",
        }
        for place, label in enumerate(labels)
    }
    rows = [{"color": row.color, "name": row.name, "text": row.text} for row in legend(labels)]
    return {"known": known, "legend": rows}


def _modes(stack: MapStack, saturated: bool) -> tuple[SliceMode, ...]:
    titles = {_key(found): _title(found) for found in stack.maps}
    modes = []
    if "sensitivity" in titles:
        modes.append(SliceMode("overlay", "Overlay"))
    for key in ("labels", "sensitivity", "high", "low"):
        if key in titles:
            modes.append(SliceMode(key, titles[key]))
    modes += [SliceMode(key, title) for key, title in titles.items() if key.startswith("eigenvector")]
    image = [SliceMode("image", titles["image"])] if "image" in titles else []
    return (*image, *modes) if saturated else (*modes, *image)


def _precision(stack: MapStack) -> str:
    """How the values at the crosshair compare with the files."""
    said = "Values are those of single voxels of the NIfTI files, to within the ± beside each."
    worst = np.max([found.step for found in stack.maps], axis=0).tolist()
    if max(worst) == 1:
        return said
    return f"{said} To keep this page small it holds up to one voxel of {numbers.sizes(worst)} of each map; the files hold all."
