"""Options of `monai-ifim decompose` that say in which unit, and how coarse, changes of the image are."""

from __future__ import annotations

from typing import Any


def scanner_settings(space: str, statistics: str | None, resolution: str | None, noise: str | None) -> dict[str, Any]:
    """The fields of `RunSettings` for scanner space. Unless told otherwise, changes are as coarse as the network's voxels
    where they are not counted in noise. Raises IFIMError for such an option in another space."""
    from monai_ifim.core import IFIMError

    if space != "scanner" and (statistics is not None or resolution is not None):
        raise IFIMError(f"--statistics and --resolution belong to the space 'scanner', not to {space!r}: leave them out.")
    if space == "scanner" and resolution is None and noise is None:
        resolution = "network"
    given = {"statistics": statistics, "resolution": resolution}
    return {name: value for name, value in given.items() if value is not None}
