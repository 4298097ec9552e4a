"""The list of cases of a run from its inputs: files, folders, DICOM series, MONAI datalists."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path, PurePath
from typing import Any

from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.case_files import results_in
from monai_ifim.io.dicom.header import dicom_files, is_dicom, is_no_image
from monai_ifim.io.dicom.volumes import index_dicom
from monai_ifim.io.experiment_files import results_of_experiment
from monai_ifim.io.source import IMAGE_SUFFIXES, there
from monai_ifim.run import earlier_results
from monai_ifim.run.distinct_names import Located, distinct_names, names_elsewhere

Beside = tuple[tuple[str, Any], ...]  # further entries of an image's data dictionary

EVERY_SERIES = "all"
WORKING_FOLDER = Path("datalist")  # as a datalist in it would be: names are relative to it
PREFERRED_SECTIONS = ("testing", "test", "validation")


@dataclass(frozen=True)
class Case:
    """One image to decompose. name: safe as the name of a folder, and unique in its list until it is settled (`run.places`).

    given: the path of the input relative to what the user named. earlier: names under which an earlier run may have filed it.
    listed: the name in the list, once another one is settled. hidden: names of its files are told nowhere.
    """

    name: str
    source: Source
    given: str = ""
    earlier: tuple[str, ...] = ()
    listed: str = ""
    hidden: bool = False

    def of_entries(self, keys: Collection[str]) -> Case:
        """The case with only these of the entries beside its image, which then identify it."""
        beside = tuple((key, value) for key, value in self.source.beside if key in keys)
        return self if beside == self.source.beside else replace(self, source=replace(self.source, beside=beside))


def find_cases(
    inputs: Iterable[str | PathLike[str]], frame: int | None = None, series: str | None = None, fix_geometry: bool = False
) -> list[Case]:
    """The cases in files, folders and datalists, in a stable order; raises InputError if an input holds none.

    Folders are searched recursively for images and series. A folder that holds DICOM images is one volume, and its other files
    are ignored; its subfolders are searched. Results of earlier runs are left out of folders, with a word (`earlier_results`).
    frame: which volume of 4D files to take. series: take only the volumes of this series UID from DICOM folders, or, with
    "all", each volume as a case of its own. fix_geometry: resample irregular DICOM volumes.
    """
    entries = [Path(entry) for entry in inputs]
    located = [
        Located(Source(found.path, frame, fix_geometry=fix_geometry, beside=beside), found.folders)
        for found, several in _without_repetition((entry, _expand(entry)) for entry in entries)
        for beside in several
    ]
    return _cases(located if series is None else _of_series(located, series), entries)


def cases_of_entries(entries: Sequence[Mapping[str, Any]], key: str = "image") -> list[Case]:
    """The cases of MONAI data dictionaries, each with an image's path under `key` and, beside it, all that it holds besides.

    Raises InputError where there is no image at a path.
    """
    paths = [Path(entry[key]) for entry in entries]
    expanded = []
    for path, entry in zip(paths, entries, strict=True):
        own = _beside(entry, WORKING_FOLDER, key)
        expanded.append((path, [replace(found, beside=found.beside or own) for found in _expand(path)]))
    distinct = _without_repetition(expanded)
    located = [Located(Source(found.path, beside=beside), found.folders) for found, several in distinct for beside in several]
    return _cases(located, paths)


def _cases(located: Sequence[Located], entries: Sequence[Path]) -> list[Case]:
    root = _common_folder(entries)
    return [_case(name, each, root) for name, each in zip(distinct_names(located), located, strict=True)]


def _case(name: str, located: Located, root: Path) -> Case:
    earlier = tuple(each for each in names_elsewhere(located) if each != name)
    return Case(name, located.source, _below(root, located.source.path), earlier)


@dataclass(frozen=True)
class _Found:
    """A file or a DICOM folder, the folders below what the user named in which it lies, and what a datalist names beside it.

    result: it is a result of an earlier run that lies in a folder.
    """

    path: Path
    folders: tuple[str, ...] = ()
    beside: Beside = ()
    result: bool = False


def _without_repetition(expanded: Iterable[tuple[Path, Sequence[_Found]]]) -> list[tuple[_Found, list[Beside]]]:
    """What lies at and below each entry, in order, each path once, with all that lies beside it."""
    paths: dict[str, tuple[_Found, list[Beside]]] = {}
    named: list[Path] = []
    results: set[str] = set()
    for entry, listed in expanded:
        found = [one for one in listed if not one.result]
        results.update(os.path.abspath(one.path) for one in listed if one.result)
        named += earlier_results.named_results([] if entry.is_dir() else [one.path for one in found])
        if not found:
            if listed:
                raise InputError(
                    f"{entry}: holds no image but {len(listed)} results of earlier runs: name the images, or, to decompose a "
                    "result, its file itself."
                )
            index = ", but a DICOMDIR, which is an index: copy the images that it names, too" if _is_index(entry) else ""
            raise InputError(f"{entry}: no image and no DICOM series in it{index}.")
        for one in found:
            _, others = paths.setdefault(_place(one.path), (one, []))
            if one.beside not in others and (one.beside or not others):
                others[:] = [each for each in others if each] + [one.beside]
    if not paths:
        raise InputError("no input: name a file, a folder, a DICOM series or a datalist (.json).")
    earlier_results.tell(len(results), named)
    return list(paths.values())


def _place(path: Path) -> str:
    """The same text for all spellings of a path; what lies above a link is not what lies above its name."""
    with suppress(ValueError):  # no path at all, which fails when it is read
        return os.path.join(os.path.realpath(path.parent), path.name) if ".." in path.parts else os.path.abspath(path)
    return str(path)


def _common_folder(entries: Sequence[Path]) -> Path:
    """The folder that a folder is named by, or the deepest that holds all of several entries."""
    places = [os.path.abspath(entry) for entry in entries]
    return Path(os.path.commonpath([place if os.path.isdir(place) else os.path.dirname(place) for place in places]))


def _below(root: Path, path: Path) -> str:
    """The path relative to `root`, the name of `root` for itself, and a path elsewhere as it is."""
    absolute = Path(os.path.abspath(path))
    if absolute == root:
        return root.name
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(path)


def list_entries(inputs: str | PathLike[str] | Sequence[str | PathLike[str]], key: str = "image") -> list[dict[str, Any]]:
    """The cases as MONAI data dictionaries, [{key: path, ...}, ...], with all that a datalist names besides: the `datalist` of
    a bundle.

    Raises InputError for what MONAI would read wrongly: 4D files, mosaics, several or irregular DICOM volumes in one folder.
    """
    several = [inputs] if isinstance(inputs, (str, PathLike)) else inputs
    cases = find_cases(several)
    for case in cases:
        opened = OpenedSource(case.source)
        opened.check(channels=None)
        if opened.reading.tiles is not None:
            raise InputError(
                f"{case.source.path.name}: a mosaic, which MONAI's own readers take for one slice: give the NIfTI file that "
                "dcm2niix makes of it, or use monai-ifim decompose."
            )
    return [{name: _plain(value) for name, value in case.source.beside} | {key: str(case.source.path)} for case in cases]


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _of_series(located: list[Located], series: str) -> list[Located]:
    """The volumes of DICOM folders that `series` selects; other sources are kept with "all" and dropped otherwise."""
    chosen: list[Located] = []
    for each in located:
        files = dicom_files(each.source.path)
        if not files:
            chosen += [each] if series == EVERY_SERIES else []
            continue
        volumes = index_dicom(files)
        wanted = [volume for volume in volumes if series in (EVERY_SERIES, volume.key, volume.series)]
        alone = len(volumes) == 1
        chosen += [each if alone else replace(each, source=replace(each.source, series=volume.key)) for volume in wanted]
    if not chosen:
        raise InputError(f"no input holds the series {series}: leave --series out to list the series.")
    return chosen


def _expand(path: Path, folders: tuple[str, ...] = (), above: frozenset[Path] = frozenset()) -> list[_Found]:
    """Images and series at and below `path`, with what a datalist names beside them; links to a folder above are not followed."""
    if not there(path):
        raise InputError(f"{path}: no such file or folder.")
    if path.is_file():
        return _read_datalist(path) if path.suffix.lower() == ".json" else [_Found(path, folders)]
    if not path.is_dir():
        raise InputError(f"{path}: neither a file nor a folder.")
    children = sorted(path.iterdir())
    names = {child.name for child in children}
    results = results_in(path, names) | results_of_experiment(path.absolute(), names)
    series = any(_is_dicom_image(child) for child in children if child.name not in results)
    found: list[_Found] = [_Found(path, folders[:-1])] if series else []
    seen = above | {path.resolve()}
    for child in children:
        if child.name.startswith("."):
            continue
        if child.name in results and child.is_file():
            if child.name.lower().endswith(IMAGE_SUFFIXES):
                found.append(_Found(child, folders, result=True))
            continue
        if child.is_dir() and child.resolve() not in seen:
            found.extend(_expand(child, (*folders, child.name), seen))
        elif not series and _is_image(child):
            found.append(_Found(child, folders))
    return found


def _is_image(file: Path) -> bool:
    """True for a file with the suffix of an image, unless it is DICOM without an image (a report, a plan)."""
    return file.is_file() and file.name.lower().endswith(IMAGE_SUFFIXES) and not (is_dicom(file) and is_no_image(file))


def _is_index(folder: Path) -> bool:
    return folder.is_dir() and any(file.name.upper() == "DICOMDIR" for file in folder.iterdir())


def _is_dicom_image(file: Path) -> bool:
    """True for a DICOM file with an image that is neither hidden nor an index."""
    seen = not file.name.startswith(".") and file.name.upper() != "DICOMDIR"
    return seen and is_dicom(file) and not is_no_image(file)


def _read_datalist(path: Path) -> list[_Found]:
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
        images.append(_Found(_locate(image, path), _folders_of(image), beside))
    return images


def _folders_of(image: str) -> tuple[str, ...]:
    """The folders of a relative name in a datalist."""
    parent = PurePath(image).parent
    return () if parent.is_absolute() or ".." in parent.parts else parent.parts


def _beside(entry: Mapping[str, Any], datalist: Path, image: str = "image") -> Beside:
    """The other entries of an image's data; a text that names a file there is, by its path."""
    return tuple((key, _located(value, datalist)) for key, value in sorted(entry.items()) if key != image)


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
