"""MONAI datalists: the images that a .json file names, with all that it names beside each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from monai_ifim.io import InputError
from monai_ifim.io.case_names import name_of
from monai_ifim.io.source import there
from monai_ifim.run.found_input import Beside, FoundInput

PREFERRED_SECTIONS = ("testing", "test", "validation")


def read_datalist(path: Path) -> list[FoundInput]:
    """The entries of a datalist: a list, or a mapping with a testing section or with only one section.

    An entry without an image is "refused". Raises InputError for a file that is no datalist, or has no entry; OSError.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: not a JSON datalist ({error}).") from error
    if isinstance(content, dict):
        content = _section(content, path)
    if not isinstance(content, list):
        raise InputError(f"{path.name}: a datalist is a list of entries such as {{'image': 'scan.nii.gz'}}.")
    if not content:
        raise InputError(f"{path.name}: a datalist that names no image: add entries, {{'image': 'scan.nii.gz'}}.")
    return [_entry(entry, number, path) for number, entry in enumerate(content, start=1)]


def _entry(entry: Any, number: int, datalist: Path) -> FoundInput:
    image = entry.get("image") if isinstance(entry, dict) else entry
    if not isinstance(image, str) or not image.strip():
        return refused_entry(datalist, number, image)
    try:
        place = _locate(image, datalist)
    except InputError as error:  # no name that a file can have
        return FoundInput(datalist, kind="refused", said=str(error), label=_label(datalist, number))
    return FoundInput(place, _folders_of(image), beside_image(entry, datalist) if isinstance(entry, dict) else ())


def refused_entry(datalist: Path, number: int, image: Any, key: str = "image") -> FoundInput:
    """What stands for an entry whose image is not named by a path."""
    said = f"has no image: name one, {{'{key}': 'scan.nii.gz'}}."
    if isinstance(image, list):
        said = "names several files for one image, which are not read as one: stack them into one file of several volumes."
    return FoundInput(datalist, kind="refused", said=f"{datalist.name}: entry {number} {said}", label=_label(datalist, number))


def _label(datalist: Path, number: int) -> str:
    return name_of([f"{datalist.stem}_entry-{number}"])


def beside_image(entry: Mapping[str, Any], datalist: Path, image: str = "image") -> Beside:
    """The other entries of an image's data; a text that names a file there is, by its path."""
    return tuple((key, _located(value, datalist)) for key, value in sorted(entry.items()) if key != image)


def _folders_of(image: str) -> tuple[str, ...]:
    """The folders of a relative name in a datalist."""
    parent = PurePath(image).parent
    return () if parent.is_absolute() or ".." in parent.parts else parent.parts


def _located(value: Any, datalist: Path) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        place = _locate(value, datalist)
        return place if there(place) else value
    except (InputError, ValueError):  # a text of other kinds
        return value


def _section(content: dict[str, Any], path: Path) -> Any:
    sections = {name: value for name, value in content.items() if isinstance(value, list) and any(map(_names_image, value))}
    if len(sections) == 1:
        return next(iter(sections.values()))
    for name in PREFERRED_SECTIONS:
        if name in sections:
            return sections[name]
    raise InputError(f"{path.name}: has {len(sections)} sections with images: name one 'testing', or leave only one.")


def _names_image(entry: Any) -> bool:
    return isinstance(entry, dict) and "image" in entry


def _locate(image: str, datalist: Path) -> Path:
    """The path of an image: relative names are looked up beside the datalist, then in the folder above it."""
    candidates = [datalist.parent / image, datalist.parent.parent / image]
    return next((candidate for candidate in candidates if there(candidate)), candidates[0])
