"""The list of cases of a run from its inputs: files, folders, DICOM series, MONAI datalists."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom.header import dicom_files, is_dicom, is_no_image
from monai_ifim.io.dicom.volumes import index_dicom
from monai_ifim.io.source import IMAGE_SUFFIXES, bounded_name, there

Beside = tuple[tuple[str, Any], ...]  # further entries of an image's data dictionary

EVERY_SERIES = "all"
PREFERRED_SECTIONS = ("testing", "test", "validation")


@dataclass(frozen=True)
class Case:
    """One image to decompose. name: unique in its list, and safe as the name of a folder."""

    name: str
    source: Source

    def of_entries(self, keys: Collection[str]) -> Case:
        """The case with only these of the entries beside its image, which then identify it."""
        beside = tuple((key, value) for key, value in self.source.beside if key in keys)
        return self if beside == self.source.beside else replace(self, source=replace(self.source, beside=beside))


def find_cases(
    inputs: Iterable[str | PathLike[str]], frame: int | None = None, series: str | None = None, fix_geometry: bool = False
) -> list[Case]:
    """The cases in files, folders and datalists, in a stable order; raises InputError if an input holds none.

    Folders are searched recursively for images and series. A folder that holds DICOM images is one volume, and its other files
    are ignored; its subfolders are searched.
    frame: which volume of 4D files to take. series: take only the volumes of this series UID from DICOM folders, or, with
    "all", each volume as a case of its own. fix_geometry: resample irregular DICOM volumes.
    """
    paths: dict[Path, list[Beside]] = {}  # in order, each once for all that lies beside it
    for entry in inputs:
        found = _expand(Path(entry))
        if not found:
            index = ", but a DICOMDIR, which is an index: copy the images that it names, too" if _is_index(Path(entry)) else ""
            raise InputError(f"{entry}: no image and no DICOM series in it{index}.")
        for path, beside in found:
            others = paths.setdefault(path, [])
            if beside not in others and (beside or not others):
                others[:] = [each for each in others if each] + [beside]
    if not paths:
        raise InputError("no input: name a file, a folder, a DICOM series or a datalist (.json).")
    pairs = [(path, beside) for path, several in paths.items() for beside in several]
    sources = [Source(path, frame, fix_geometry=fix_geometry, beside=beside) for path, beside in pairs]
    return _named(sources if series is None else _of_series(sources, series))


def list_entries(inputs: str | PathLike[str] | Sequence[str | PathLike[str]], key: str = "image") -> list[dict[str, str]]:
    """The cases as MONAI data dictionaries, [{key: path}, ...], for the `datalist` of a bundle.

    Raises InputError for inputs that MONAI would read wrongly: 4D files, several or irregular DICOM volumes in one folder.
    """
    several = [inputs] if isinstance(inputs, (str, PathLike)) else inputs
    cases = find_cases(several)
    for case in cases:
        OpenedSource(case.source).check(channels=None)
    return [{key: str(case.source.path)} for case in cases]


def _of_series(sources: list[Source], series: str) -> list[Source]:
    """The volumes of DICOM folders that `series` selects; other sources are kept with "all" and dropped otherwise."""
    chosen: list[Source] = []
    for source in sources:
        files = dicom_files(source.path)
        if not files:
            chosen += [source] if series == EVERY_SERIES else []
            continue
        volumes = index_dicom(files)
        wanted = [volume for volume in volumes if series in (EVERY_SERIES, volume.key, volume.series)]
        alone = len(volumes) == 1
        chosen += [source if alone else replace(source, series=volume.key) for volume in wanted]
    if not chosen:
        raise InputError(f"no input holds the series {series}: leave --series out to list the series.")
    return chosen


def _expand(path: Path, above: frozenset[Path] = frozenset()) -> list[tuple[Path, Beside]]:
    """Images and series at and below `path`, with what a datalist names beside them; links to a folder above are not followed."""
    if not there(path):
        raise InputError(f"{path}: no such file or folder.")
    if path.is_file():
        return _read_datalist(path) if path.suffix.lower() == ".json" else [(path, ())]
    if not path.is_dir():
        raise InputError(f"{path}: neither a file nor a folder.")
    series = _holds_dicom(path)
    found: list[tuple[Path, Beside]] = [(path, ())] if series else []
    seen = above | {path.resolve()}
    for child in sorted(path.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_dir() and child.resolve() not in seen:
            found.extend(_expand(child, seen))
        elif not series and _is_image(child):
            found.append((child, ()))
    return found


def _is_image(file: Path) -> bool:
    """True for a file with the suffix of an image, unless it is DICOM without an image (a report, a plan)."""
    return file.is_file() and file.name.lower().endswith(IMAGE_SUFFIXES) and not (is_dicom(file) and is_no_image(file))


def _is_index(folder: Path) -> bool:
    return folder.is_dir() and any(file.name.upper() == "DICOMDIR" for file in folder.iterdir())


def _holds_dicom(folder: Path) -> bool:
    files = (file for file in folder.iterdir() if not file.name.startswith(".") and file.name.upper() != "DICOMDIR")
    return any(is_dicom(file) and not is_no_image(file) for file in files)


def _read_datalist(path: Path) -> list[tuple[Path, Beside]]:
    """Images of a MONAI datalist: a list, or a mapping with a testing section or with only one section."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: not a JSON datalist ({error}).") from error
    if isinstance(content, dict):
        content = _section(content, path)
    if not isinstance(content, list):
        raise InputError(f"{path.name}: a datalist is a list of entries such as {{'image': 'scan.nii.gz'}}.")
    images = []
    for number, entry in enumerate(content, start=1):
        image = entry.get("image") if isinstance(entry, dict) else entry
        if isinstance(image, list):
            raise InputError(
                f"{path.name}: several files for one image are not read: stack them into one file of several volumes."
            )
        if not isinstance(image, str) or not image.strip():
            raise InputError(f"{path.name}: entry {number} has no image: name one, {{'image': 'scan.nii.gz'}}.")
        beside = _beside(entry, path) if isinstance(entry, dict) else ()
        images.append((_locate(image, path), beside))
    return images


def _beside(entry: dict[str, Any], datalist: Path) -> Beside:
    """The other entries of an image's data; a text that names a file there is, by its path."""
    return tuple((key, _located(value, datalist)) for key, value in sorted(entry.items()) if key != "image")


def _located(value: Any, datalist: Path) -> Any:
    if not isinstance(value, str) or not value.strip():
        return value
    try:
        place = _locate(value, datalist)
        return place if there(place) else value
    except (InputError, ValueError):  # a text of other kinds
        return value


def _section(content: dict[str, Any], path: Path) -> Any:
    sections = {name: value for name, value in content.items() if isinstance(value, list) and value and _names_image(value[0])}
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


def _named(sources: list[Source]) -> list[Case]:
    """Cases with unique names: repeated base names get the names of their folders, or else a number.

    Names that differ only in letter case count as equal, because some file systems ignore it.
    """
    names = _names_by_format(sources)
    folders = _folders_below_common(sources)
    while True:
        counts = Counter(name.lower() for name in names)
        unresolved = [i for i, name in enumerate(names) if counts[name.lower()] > 1 and folders[i]]
        if not unresolved:
            break
        for i in unresolved:
            names[i] = bounded_name(f"{Source(Path(folders[i].pop())).name}_{names[i]}")
    taken: set[str] = set()
    cases = []
    for name, source in zip(names, sources, strict=True):
        candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        free = next(candidate for candidate in candidates if candidate.lower() not in taken)
        taken.add(free.lower())
        cases.append(Case(free, source))
    return cases


def _names_by_format(sources: list[Source]) -> list[str]:
    """Base names; files of one folder that differ only in their suffix keep it in their names."""
    places = [(source.path.absolute().parent, source.name.lower()) for source in sources]
    repeated = Counter(places)
    return [
        source.name if repeated[place] == 1 else f"{source.name}{source.suffix.replace('.', '_').lower()}"
        for source, place in zip(sources, places, strict=True)
    ]


def _folders_below_common(sources: list[Source]) -> list[list[str]]:
    """For each source, the folders between it and the common parent of all."""
    parents = [source.path.absolute().parent for source in sources]
    shared = len(Path(os.path.commonpath(parents)).parts)
    return [list(parent.parts[shared:]) for parent in parents]
