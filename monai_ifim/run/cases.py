"""The list of cases of a run from its inputs: files, folders, DICOM series, MONAI datalists."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from monai_ifim.core import IFIMError
from monai_ifim.io import InputError, OpenedSource, Source
from monai_ifim.io.dicom.header import dicom_files
from monai_ifim.io.dicom.volumes import index_dicom
from monai_ifim.io.image_files.parts import first_file
from monai_ifim.io.source import ValueChoice, is_dangling, not_fetched, there
from monai_ifim.run import earlier_results, unread_files
from monai_ifim.run.datalist import beside_image, read_datalist, refused_entry
from monai_ifim.run.distinct_names import Located, distinct_names, names_elsewhere
from monai_ifim.run.folder import found_in, not_looked_into, parts_of
from monai_ifim.run.found_input import Beside, FoundInput

EVERY_SERIES = "all"
WORKING_FOLDER = Path("datalist")  # as a datalist in it would be: names are relative to it
MOST_REASONS = 3  # of inputs without an image, in one message


@dataclass(frozen=True)
class Case:
    """One image to decompose. name: safe as the name of a folder, and unique in its list until it is settled (`run.places`).

    given: the path of the input relative to what the user named. earlier: names under which an earlier run may have filed it.
    listed: the name in the list, once another one is settled. hidden: names of its files are told nowhere. refusal: why there is
    no image at `source`; such a case fails, and the others are made.
    """

    name: str
    source: Source
    given: str = ""
    earlier: tuple[str, ...] = ()
    listed: str = ""
    hidden: bool = False
    refusal: str = ""

    def of_entries(self, keys: Collection[str]) -> Case:
        """The case with only these of the entries beside its image, which then identify it."""
        beside = tuple((key, value) for key, value in self.source.beside if key in keys)
        return self if beside == self.source.beside else replace(self, source=replace(self.source, beside=beside))


@dataclass(frozen=True)
class FoundCases:
    """The cases in some inputs, and the number of files by kind that may be images and are not read (`run.unread_files`)."""

    cases: list[Case]
    unread: Mapping[str, int] = field(default_factory=dict)

    def told_unread(self, hidden: bool) -> dict[str, int]:
        """`unread`, without suffixes that may be parts of names if names are told nowhere."""
        return unread_files.without_names(self.unread) if hidden else dict(self.unread)


def find_cases(
    inputs: Iterable[str | PathLike[str]],
    frame: int | None = None,
    series: str | None = None,
    fix_geometry: bool = False,
    choice: ValueChoice | None = None,
) -> list[Case]:
    """The cases in files, folders and datalists, in a stable order; raises InputError if none of the inputs holds an image.

    An input without an image among others is a case that fails, with the reason (`Case.refusal`).
    Folders are searched recursively for images and series. A folder that holds DICOM images is one volume, and its other files
    are ignored; its subfolders are searched. Results of earlier runs are left out of folders, with a word (`earlier_results`), as
    are files that may be images and are of no format that is read (`unread_files`).
    frame: which volume to take of inputs of several (4D files, DICOM series of several volumes); others are taken whole. series:
    take only the volumes of this series UID from DICOM folders, or, with "all", each volume as a case of its own. fix_geometry:
    resample irregular DICOM volumes. choice: which values of DICOM images, by default those that their headers state.
    """
    found = search_cases(inputs, frame, series, fix_geometry, choice)
    if said := unread_files.sentence(found.unread):
        earlier_results.say(said)
    return found.cases


def search_cases(
    inputs: Iterable[str | PathLike[str]],
    frame: int | None = None,
    series: str | None = None,
    fix_geometry: bool = False,
    choice: ValueChoice | None = None,
) -> FoundCases:
    """`find_cases`, with the files that are not read."""
    entries = [Path(entry) for entry in inputs]
    gathered = _gathered((entry, _expanded(entry)) for entry in entries)
    located = gathered.located if series is None else _of_series(gathered.located, series, whole=frame is not None)
    located = located if frame is None else _of_frame(located, frame)
    asked = choice or ValueChoice()
    cases = [
        replace(case, source=replace(case.source, fix_geometry=fix_geometry, choice=asked)) for case in _cases(located, entries)
    ]
    return FoundCases(cases, unread_files.counted(gathered.unread.values()))


def cases_of_entries(entries: Sequence[Mapping[str, Any]], key: str = "image") -> list[Case]:
    """The cases of MONAI data dictionaries, each with an image's path under `key` and, beside it, all that it holds besides.

    Raises InputError where none of them holds an image; one without an image among others is a case that fails.
    """
    paths: list[Path] = []
    expanded = []
    for number, entry in enumerate(entries, start=1):
        image = entry.get(key)
        if not isinstance(image, (str, PathLike)) or not str(image).strip():
            expanded.append((WORKING_FOLDER, [refused_entry(WORKING_FOLDER, number, image, key)]))
            continue
        own = beside_image(entry, WORKING_FOLDER, key)
        paths.append(Path(image))
        expanded.append((paths[-1], [replace(found, beside=found.beside or own) for found in _expanded(paths[-1])]))
    return _cases(_gathered(expanded).located, paths)


def _cases(located: Sequence[Located], entries: Sequence[Path]) -> list[Case]:
    root = _common_folder(entries)
    by_rank = sorted(range(len(located)), key=lambda index: bool(located[index].refusal))  # those without an image get names last
    names = dict(zip(by_rank, distinct_names([located[index] for index in by_rank]), strict=True))
    return [_case(names[index], each, root) for index, each in enumerate(located)]


def _case(name: str, located: Located, root: Path) -> Case:
    earlier = () if located.refusal else tuple(each for each in names_elsewhere(located) if each != name)
    return Case(name, located.source, _below(root, located.source.path), earlier, refusal=located.refusal)


@dataclass(frozen=True)
class _Gathered:
    """What lies at and below the inputs, in order and each once. unread: the kind of each file by its place."""

    located: list[Located]
    unread: dict[str, str]


def _gathered(expanded: Iterable[tuple[Path, Sequence[FoundInput]]]) -> _Gathered:
    """What was found at and below each entry; one without any image is refused. Raises InputError if no entry holds one."""
    found: dict[tuple[str, str], tuple[FoundInput, list[Beside]]] = {}
    named: list[Path] = []
    results: dict[str, str] = {}
    unread: dict[str, str] = {}
    for entry, listed in expanded:
        results |= {os.path.abspath(one.path): one.said for one in listed if one.kind == "result"}
        unread |= {_place(one.path): one.said for one in listed if one.kind == "unread"}
        several = [one for one in listed if one.kind in ("image", "refused")] or [_without_image(entry, listed)]
        images = [] if os.path.isdir(entry) else [one.path for one in several if one.kind == "image"]
        named += earlier_results.named_results(images)
        for one in several:
            _, others = found.setdefault((_place(first_file(one.path)), one.said), (one, []))
            if one.beside not in others and (one.beside or not others):
                others[:] = [each for each in others if each] + [one.beside]
    if all(one.kind == "refused" for one, _ in found.values()):
        raise InputError(_nothing([one.said for one, _ in found.values()]))
    for part in parts_of([one.path for one, _ in found.values()]):
        found.pop((_place(part), ""), None)
    earlier_results.tell(results.values(), named)
    located = [
        Located(Source(one.path, beside=beside), one.folders, one.label, one.said)
        for one, several_beside in found.values()
        for beside in several_beside
    ]
    return _Gathered(located, unread)


def _without_image(entry: Path, listed: Sequence[FoundInput]) -> FoundInput:
    """An input in which there is no image, with the reason."""
    results = [one.said for one in listed if one.kind == "result"]
    said = f"{entry}: no image and no DICOM series in it"
    if results:
        cure = "name the images" + ("" if all(results) else ", or, to decompose a result, its file itself")
        several = "1 result of an earlier run" if len(results) == 1 else f"{len(results)} results of earlier runs"
        said = f"{entry}: holds no image but {several}: {cure}."
    elif any(one.kind == "index" for one in listed):
        said = f"{said}, but a DICOMDIR, which is an index: copy the images that it names, too."
    else:
        unread = unread_files.sentence(unread_files.counted(one.said for one in listed if one.kind == "unread"))
        said = f"{said}. {unread}".rstrip()
    return FoundInput(entry, kind="refused", said=said)


def _nothing(reasons: Sequence[str]) -> str:
    """Why there is no image in any input."""
    if not reasons:
        return "no input: name a file, a folder, a DICOM series or a datalist (.json)."
    more = len(reasons) - MOST_REASONS
    return " ".join(reasons[:MOST_REASONS]) + (f" And {more} more without an image." if more > 0 else "")


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
        if case.refusal:
            raise InputError(case.refusal)
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


def _of_series(located: list[Located], series: str, whole: bool) -> list[Located]:
    """The volumes of DICOM folders that `series` selects; other sources are kept with "all" and dropped otherwise.

    whole: a series of several volumes is one source, of which `_of_frame` chooses a volume.
    """
    chosen: list[Located] = []
    for each in located:
        if each.refusal:
            chosen.append(each)
            continue
        try:
            files = dicom_files(each.source.path)
            volumes = index_dicom(files) if files else []
        except (InputError, OSError):  # it fails when it is read, by its own reason
            chosen.append(each)
            continue
        if not files:
            chosen += [each] if series == EVERY_SERIES else []
            continue
        wanted = [volume for volume in volumes if series in (EVERY_SERIES, volume.key, volume.series)]
        keys = [volume.series if whole and series != volume.key else volume.key for volume in wanted]
        alone = len(volumes) == 1
        chosen += [each if alone else replace(each, source=replace(each.source, series=key)) for key in dict.fromkeys(keys)]
    if all(each.refusal for each in chosen):
        raise InputError(f"no input holds the series {series}: leave --series out to list the series.")
    return chosen


def _of_frame(located: list[Located], frame: int) -> list[Located]:
    """The sources with the volume to take of those that hold several; the others are taken whole."""
    several = [not each.refusal and _holds_several(each.source) for each in located]
    if not any(several):
        earlier_results.say(f"--frame {frame} has no effect: no input holds several volumes.")
    chosen = zip(located, several, strict=True)
    return [replace(each, source=replace(each.source, frame=frame)) if applies else each for each, applies in chosen]


def _holds_several(source: Source) -> bool:
    """True for an input of several volumes by its header, and for one that cannot be read, which fails by its own reason."""
    try:
        return OpenedSource(source).frames > 1
    except (IFIMError, OSError):
        return True


def _expanded(entry: Path) -> list[FoundInput]:
    """Images and series at and below an entry, with what a datalist names beside them, and why there are none."""
    try:
        if not there(entry):
            raise not_fetched(entry.name) if is_dangling(entry) else InputError(f"{entry}: no such file or folder.")
        if entry.is_dir():
            return list(found_in(entry))
        if not entry.is_file():
            raise InputError(f"{entry}: neither a file nor a folder.")
        return read_datalist(entry) if entry.suffix.lower() == ".json" else [FoundInput(entry)]
    except OSError as error:
        return [FoundInput(entry, kind="refused", said=str(not_looked_into(entry, error)))]
    except InputError as error:
        return [FoundInput(entry, kind="refused", said=str(error))]
