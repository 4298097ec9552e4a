"""The part of an answer that was decomposed, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from monai_ifim.display.numbers import counted


def asked_text(answer: Mapping[str, Any] | None, head: str) -> str:
    """Which part of the answer was decomposed, such as "the volume of tumour"; empty for all of it.

    answer: of a sidecar: name or number of a label, mask, voxels; head: name of the head.
    """
    if answer is None:
        return ""
    name = answer["label"] if answer.get("name") is None else answer["name"]
    masked = answer.get("mask") is not None
    inside = " inside of a mask" if masked else ""
    voxels = f" ({counted(answer['voxels'], 'voxel')})" if answer.get("voxels") is not None else ""
    if head.startswith("volumes"):
        return f"the volume of {name}{inside}" if name is not None else f"volumes{inside}{voxels}"
    if head.startswith("voxelwise"):
        return f"the voxels{'' if name is None else f' predicted as {name}'}{inside}{voxels}"
    return f"{name} against the rest"
