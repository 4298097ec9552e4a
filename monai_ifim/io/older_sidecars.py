"""Sidecars of schema 1 in the form of schema 2. Plain Python, so that the viewer can use it.

Schema 1 states the content of a file as one text, such as "eigenvector 2, channel 3", and neither its hash nor its unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA_VERSION = "2.4"  # of the sidecars written and returned; a reader of 2.x reads every 2.y
# 2.1 adds verification, corrections, output, left_out and the files beside the input; 2.2 the SHA-256 of each file that the input
# consists of, of each file written and of each that the bundle's answer depends on; 2.3 what was
# decided in reading the input, and the warnings of the case; 2.4 the grid that each norm, unit and file belongs to, norms and
# locality on the grid of the decomposition, whether that is a lower bound, how the channels of the network's input are tied, the
# segmentation: its file, its rule and its labels, the part of the answer that was asked for, the volumes of labels with their
# gradients, where the head comes from, how the iteration ended (status, stopped), the standard errors of trace and sensitivity
# where these are estimates, the share of the trace that each file holds, whether the answer is saturated, what the bundle was
# made for, in what the image departs from that, which kernels the backward passes of convolutions took, and the sensitivity to
# named coordinates.
_CONTENT = re.compile(r"(source|input|high|low|sensitivity|eigenvector)(?: ([1-9]\d*))?(?:, channel ([1-9]\d*))?")


def up_to_date(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    """A sidecar of schema 1 or 2 in the form of schema 2; unknown hashes are None.

    Raises ValueError for another version, KeyError, TypeError or AttributeError for a sidecar of schema 1 without its parts.
    """
    version = str(sidecar.get("schema_version", ""))
    major = version.split(".")[0]
    if major == "1":
        return _from_1(sidecar)
    if major != SCHEMA_VERSION.split(".")[0]:
        raise ValueError(f"schema version {version[:20] or 'missing'}; this program reads 1.x and {SCHEMA_VERSION}")
    settings = sidecar.get("settings")
    if not isinstance(settings, Mapping) or "channels" in settings or "space" not in settings:
        return dict(sidecar)
    return dict(sidecar) | {"settings": dict(settings) | {"channels": _channels_before_2_4(settings, sidecar["files"])}}


def _channels_before_2_4(settings: Mapping[str, Any], files: Iterable[Mapping[str, Any]]) -> str:
    """What the setting `channels` was before there was one: each channel had files of its own."""
    single = settings["space"] == "scanner" or all(file["channel"] == 1 for file in files)
    return "tied" if single else "each"


def _from_1(sidecar: Mapping[str, Any]) -> dict[str, Any]:
    source = sidecar.get("source")
    units = dict(sidecar["units"]) | ({} if source is None else {"source": source["unit"]})
    files = [_file_from_1(file, units) for file in sidecar["files"]]
    kept = {name: value for name, value in sidecar.items() if name != "source"}
    return kept | {"schema_version": SCHEMA_VERSION, "files": files, "settings": None}


def _file_from_1(file: Mapping[str, Any], units: Mapping[str, Any]) -> dict[str, Any]:
    found = _CONTENT.fullmatch(file["content"])
    if found is None:
        raise ValueError(f"content {file['content'][:40]!r} is not known")
    kind, component, channel = found[1], found[2], found[3]
    content = {"kind": kind, "component": None if component is None else int(component), "channel": int(channel or 1)}
    rest = {name: value for name, value in file.items() if name not in ("file", "content")}
    return {"file": file["file"], **content, "sha256": None, "unit": unit_of_map(kind, units), **rest}


def unit_of_map(kind: str, units: Mapping[str, Any]) -> str:
    """Unit of the true values of a map, from the units that a sidecar states for the case."""
    if kind in ("eigenvector", "labels"):
        return "1"
    if kind == "sensitivity_error":
        kind = "sensitivity"
    return str(units[kind] if kind in ("source", "sensitivity") else units["maps"])
