"""Where the cases of a list lie in OUT: under the name that an earlier run gave to the same input, or else under their own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from monai_ifim.core import IFIMError
from monai_ifim.io import OpenedSource
from monai_ifim.io.case_files import sidecar_path
from monai_ifim.io.case_folder import holder_of, name_for
from monai_ifim.io.case_names import DIGITS
from monai_ifim.io.key_table import KeyTable, refuse_told_names
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings

MOST_HASHED = 20  # inputs that are hashed before the run to find whose an earlier case is


def placed(cases: Sequence[Case], settings: RunSettings) -> list[Case]:
    """The cases as an engine has to get them, called once before a run, and in each rank before any of them writes.

    Where several could be the input of one earlier case, they are told apart here, by their hashes. With `case_names` "hash" the
    names are pseudonyms. Raises OutputError if the table of their keys cannot be kept,
    and without pseudonyms if OUT holds some.
    """
    if settings.case.case_names == "hash":
        table = KeyTable.beside(settings.output)
        return [
            replace(case, name=table.provisional(f"{case.name}\0{case.source.path}"), earlier=(), given="", hidden=True)
            for case in cases
        ]
    refuse_told_names(settings.output)
    held = _held_by_name(settings.output)
    if not held:
        return [replace(case, earlier=()) for case in cases]
    listed = {case.name.lower(): index for index, case in enumerate(cases)}
    wanting: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for index, case in enumerate(cases):
        for name in (case.name, *case.earlier):
            for folder in held.get(name, ()):
                if folder == name or folder.lower() not in listed:  # digits that belong to the name of another case
                    wanting[folder][index] = None
    granted: defaultdict[int, list[str]] = defaultdict(list)
    opened = _Opened(cases)
    for folder, wanted_by in wanting.items():
        owner = listed.get(folder.lower())
        contenders = list(dict.fromkeys([*([] if owner is None else [owner]), *wanted_by]))
        found = contenders[0] if len(contenders) == 1 else _whose(folder, contenders[:MOST_HASHED], opened, settings.output)
        if found is not None and found != owner:
            granted[found].append(folder)
    return [replace(case, earlier=tuple(granted[index])) for index, case in enumerate(cases)]


def _held_by_name(output: Path) -> dict[str, list[str]]:
    """The folders in OUTPUT by the name that their case may have had: their own, and without the digits of an input's hash."""
    held: defaultdict[str, list[str]] = defaultdict(list)
    try:
        with os.scandir(output) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        folders = []
    for folder in folders:
        for name in dict.fromkeys((folder, DIGITS.sub("", folder))):
            held[name].append(folder)
    return dict(held)


class _Opened:
    """The inputs of cases, each opened, and so hashed, once."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._cases = cases
        self._opened: dict[int, OpenedSource] = {}

    def __getitem__(self, index: int) -> OpenedSource:
        return self._opened.setdefault(index, OpenedSource(self._cases[index].source))


def _whose(name: str, contenders: Sequence[int], opened: _Opened, output: Path) -> int | None:
    """The first of the contenders whose case lies in OUTPUT/NAME; None if there is none."""
    if not sidecar_path(output, name).is_file():
        return None
    return next(_holders(name, contenders, opened, output), None)


def _holders(name: str, contenders: Sequence[int], opened: _Opened, output: Path) -> Iterator[int]:
    for index in contenders:
        with suppress(IFIMError, OSError):  # an input that cannot be read fails later, by its own name
            if holder_of(output, name, opened[index]) == "this":
                yield index


def settled(case: Case, output: Path, opened: OpenedSource, table: KeyTable | None = None) -> Case:
    """The case under the name of its folder in OUTPUT, which never holds the case of another input.

    table: of the pseudonyms, for a hidden case. Raises OutputError if all names are taken; OSError if the input has to be read
    and cannot be.
    """
    wanted = case.name if table is None else table.pseudonym(opened)
    return replace(case, name=name_for(output, wanted, opened, case.earlier), listed=case.name)
