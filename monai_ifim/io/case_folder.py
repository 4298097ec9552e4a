"""Whose case a folder of OUT holds, and which folder a case gets: one that holds another input's case is never written to."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from monai_ifim.io import atomic
from monai_ifim.io.case_files import LARGEST_SIDECAR, LARGEST_TABLE, UNFINISHED, is_file_of, sidecar_path
from monai_ifim.io.case_names import SUFFIXES, digits_of
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.errors import OutputError
from monai_ifim.io.opened_source import OpenedSource
from monai_ifim.io.written_files import read_regular

Holder = Literal["nobody", "this", "another"]


def holder_of(output: Path, name: str, opened: OpenedSource) -> Holder:
    """Whose case lies in OUTPUT/NAME: nobody's (no folder, or what is left of a case that was never whole), this input's or
    another's.

    An input is its content, frame, series, resampling, choice of values and the content of what a datalist names beside it. A
    sidecar that is damaged is this input's if it, or else cases.csv in OUTPUT, still states the hash of this input. A file of
    that name, and a folder with files of no case, are another's. Raises OSError if the input has to be read and cannot be.
    """
    folder, sidecar = output / name, sidecar_path(output, name)
    if folder.is_symlink():
        return "nobody"  # and nothing is written there: `containment.real_folder` refuses it
    if not folder.is_dir():
        return "another" if folder.exists() else "nobody"
    if not os.path.lexists(sidecar):
        return "nobody" if all(_is_left_of(name, entry) for entry in os.listdir(folder)) else "another"
    recorded = _recorded_input(output, sidecar) or _tabulated_input(output, name)
    return "this" if recorded is not None and _is(recorded, opened) else "another"


def name_for(output: Path, name: str, opened: OpenedSource, earlier: Iterable[str] = ()) -> str:
    """The name under which OUTPUT holds this input's case already, or else the first that is nobody's: `name`, or `name` and the
    first hexadecimal digits of the input's hash.

    earlier: further names under which its case may lie. The input's hash is asked for only where a folder of one of these names
    is there. Raises OutputError if all are taken; OSError if the input has to be read and cannot be.
    """
    holder = holder_of(output, name, opened)
    if holder == "this":
        return name
    for other in earlier:
        if holder_of(output, other, opened) == "this":
            return other
    return name if holder == "nobody" else next(_free_names(output, name, opened))


def check_name(output: Path, case: str) -> None:
    """Raise OutputError for a name that cannot be that of a folder right in OUTPUT."""
    if not is_plain_name(case):
        raise OutputError(f"a case cannot be called {case!r}: choose a name that can be a folder in {output.name}.")


@contextmanager
def claimed(output: Path, name: str, opened: OpenedSource) -> Iterator[str]:
    """The name to write a case under, as `name_for`, and in the block nobody else has it: no thread, process or rank.

    Raises OutputError if all names are taken, or `name` is none for a folder.
    """
    check_name(output, name)
    for candidate in _free_names(output, name, opened):
        with atomic.sole_use(output, candidate):
            if holder_of(output, candidate, opened) != "another":  # another may have written there in the meantime
                yield candidate
                return


def _free_names(output: Path, name: str, opened: OpenedSource) -> Iterator[str]:
    """The names that are this input's, and then those that are nobody's, in the order in which they are to be tried."""
    digest = identity_digest(opened)
    candidates = [name, *(f"{name}-{digest[:digits]}" for digits in SUFFIXES)]
    holders = [(holder_of(output, each, opened), each) for each in candidates]
    yield from (each for holder, each in holders if holder == "this")
    yield from (each for holder, each in holders if holder == "nobody")
    raise OutputError(f"{name}: {output.name} holds other cases of this name: choose another --output.")


def identity_digest(opened: OpenedSource) -> str:
    """Hexadecimal digits that name the input: its SHA-256, or that of its path if it is not on disk."""
    return digits_of(os.path.abspath(opened.source.path), 64) if not _on_disk(opened) else opened.digest


def _on_disk(opened: OpenedSource) -> bool:
    return opened.source.path.exists()


def _is_left_of(case: str, entry: str) -> bool:
    """True for what a run that was killed, or failed, may leave of a case."""
    return entry == UNFINISHED or entry.startswith(atomic.PARTIAL) or is_file_of(case, entry)


def _recorded_input(output: Path, sidecar: Path) -> Mapping[str, Any] | None:
    """What a sidecar of any version, damaged or not, states about its input; None if it states no hash."""
    try:
        found = json.loads(read_regular(sidecar, output, LARGEST_SIDECAR))["input"]
        return found if isinstance(found, Mapping) and isinstance(found["sha256"], str | None) else None
    except (OSError, OutputError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _tabulated_input(output: Path, name: str) -> Mapping[str, Any] | None:
    """The hash of the case's input by cases.csv of an earlier run; None if it is not there."""
    try:
        text = read_regular(output / "cases.csv", output, LARGEST_TABLE).decode("utf-8")
        found = [row.get("input_sha256") for row in csv.DictReader(io.StringIO(text, newline="")) if row.get("case") == name]
    except (OSError, ValueError, csv.Error):
        return None
    return {"sha256": found[0]} if len(found) == 1 and found[0] else None


def is_input_of(recorded: Mapping[str, Any], opened: OpenedSource) -> bool:
    """True if a sidecar's input is this one. Its content is hashed last, and only if all else is the same."""
    source = opened.source
    return (
        recorded.get("frame", source.frame) == source.frame
        and recorded.get("series", source.series) == source.series
        and recorded.get("resampled", opened.resampled) == opened.resampled
        and recorded.get("choice", {}) == opened.choice
        and _hashes(recorded.get("beside", opened.beside)) == _hashes(opened.beside)
        and recorded["sha256"] == (opened.digest if _on_disk(opened) else None)
    )


def _is(recorded: Mapping[str, Any], opened: OpenedSource) -> bool:
    try:
        return is_input_of(recorded, opened)
    except (TypeError, AttributeError, LookupError):  # a damaged sidecar
        return False


def _hashes(beside: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value["sha256"] for key, value in beside.items()}
