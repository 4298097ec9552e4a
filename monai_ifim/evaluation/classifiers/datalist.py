"""Datalists as MONAI writes them: JSON with an image and a label per entry."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.classifiers.labels import Label, label_of
from monai_ifim.io.source import Source

__all__ = ["list_labelled", "read_labelled"]

TEST_SECTIONS = ("testing", "test", "validation")


def read_labelled(
    datalist: Path, section: str | None, class_names: Sequence[str], base_dir: str | Path | None = None
) -> list[tuple[str, Path, Label]]:
    """(name, path, label) of each entry of a datalist's section; see `list_labelled` and `label_of`.

    Also raises IFIMError where a label is none, and where some are classes and others lists of independent labels.
    """
    found = [
        (name, path, label_of(label, class_names, f"{datalist.name}: {path.name}"))
        for name, path, label in list_labelled(datalist, section, base_dir)
    ]
    kinds = {isinstance(label, tuple): path.name for _, path, label in found}
    if len(kinds) > 1:
        raise IFIMError(
            f"{datalist.name}: the label of {kinds[True]} is a list and that of {kinds[False]} a class: give lists for "
            "independent labels, or classes for exclusive ones."
        )
    return found


def list_labelled(datalist: Path, section: str | None, base_dir: str | Path | None = None) -> list[tuple[str, Path, Any]]:
    """(name, path, label as written) of each entry of a datalist's section; names are unique.

    section: None for the first of "testing", "test" and "validation" in the file, or the only section with labels.
    Raises IFIMError if the file, the section, an image or a label is missing.
    """
    try:
        content: Any = json.loads(datalist.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise IFIMError(f"{datalist.name}: cannot be read as a JSON datalist ({error}).") from error
    entries = _section(content, section) if isinstance(content, dict) else content
    if not isinstance(entries, list) or not entries:
        wanted = "no section 'testing', 'test' or 'validation'" if section is None else f"no section {section!r}"
        raise IFIMError(f"{datalist.name}: {wanted} with entries such as {{'image': 'a.png', 'label': 0}}.")
    folder = Path(base_dir) if base_dir is not None else None
    names: set[str] = set()
    found: list[tuple[str, Path, Any]] = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str) or "label" not in entry:
            raise IFIMError(f"{datalist.name}: entry {position} needs an 'image' (one file) and a 'label'.")
        path = _located(entry["image"], datalist, folder)
        name = _unique_name(path, names)
        names.add(name)
        found.append((name, path, entry["label"]))
    return found


def _section(content: dict[str, Any], section: str | None) -> Any:
    if section is not None:
        return content.get(section)
    labelled = {
        name: entries
        for name, entries in content.items()
        if isinstance(entries, list) and entries and isinstance(entries[0], dict) and "label" in entries[0]
    }
    named = [labelled[name] for name in TEST_SECTIONS if name in labelled]
    return named[0] if named else next(iter(labelled.values())) if len(labelled) == 1 else None


def _located(image: str, datalist: Path, folder: Path | None) -> Path:
    folders = [folder] if folder is not None else [datalist.parent, datalist.parent.parent]
    candidates = [place / image for place in folders]
    return next((path for path in candidates if path.exists()), candidates[0])


def _unique_name(path: Path, taken: set[str]) -> str:
    """The name of the file after that of its folder, because files of two classes may have the same name."""
    name = f"{path.parent.name}_{Source(path).name}"
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)
