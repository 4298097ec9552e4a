"""Colour tables as 3D Slicer's files, and the table of a segmentation's labels; those of maps stand in `display.color_tables`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from monai_ifim.display.color_tables import Table
from monai_ifim.display.style import LABEL_COLORS

DARKER = 0.75  # share of its brightness that a label's colour keeps when it is used again


def labels_table(labels: Sequence[Mapping[str, Any]], background: int | None) -> Table:
    """RGBA [labels, 4] of a segmentation: the background transparent, LABEL_COLORS for the largest labels and then again, ever
    darker. labels: of the sidecar, in the order of their values."""
    table = np.zeros((len(labels), 4), dtype=np.uint8)
    largest_first = sorted((each for each in labels if each["value"] != background), key=lambda each: -each["voxels"])
    for place, label in enumerate(largest_first):
        round_, color = divmod(place, len(LABEL_COLORS))
        share = DARKER**round_
        table[label["value"]] = [*(round(share * part) for part in bytes.fromhex(LABEL_COLORS[color][1:])), 255]
    return table


def label_names(labels: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of labels without the spaces that part the fields of a .ctbl."""
    return tuple("_".join(str(each["name"]).split()) or str(each["value"]) for each in labels)


def table_text(name: str, table: Table, names: Sequence[str] = ()) -> str:
    """The table as 3D Slicer's .ctbl: a line `index label R G B A` for every entry; name: one line without personal data;
    names: of the entries, by default their numbers."""
    named = names or [f"{i:03d}" for i in range(len(table))]
    lines = [f"{i} {named[i]} {red} {green} {blue} {alpha}" for i, (red, green, blue, alpha) in enumerate(table.tolist())]
    return "\n".join((f"# Color table file: {name}", f"# {len(table)} values", *lines)) + "\n"
