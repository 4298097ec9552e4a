"""Where the cases of a list lie in OUT: under the name that an earlier run gave to the same input, or else under their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from monai_ifim.core import IFIMError
from monai_ifim.io import OpenedSource
from monai_ifim.io.case_files import sidecar_path
from monai_ifim.io.case_folder import holder_of, name_for
from monai_ifim.io.key_table import KeyTable
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings

MOST_HASHED = 20  # inputs that are hashed before the run to find whose an earlier case is


def placed(cases: Sequence[Case], settings: RunSettings) -> list[Case]:
    """The cases as an engine has to get them, called once before a run, and in each rank before any of them writes.

    Where several could be the input of one earlier case, they are told apart here, by their hashes. With `case_names` "hash" the
    names are pseudonyms. Raises OutputError if the table of their keys cannot be kept.
    """
    if settings.case.case_names == "hash":
        table = KeyTable.beside(settings.output)
        return [
            replace(case, name=table.provisional(f"{case.name}\0{case.source.path}"), earlier=(), given="", hidden=True)
            for case in cases
        ]
    listed = {case.name.lower(): index for index, case in enumerate(cases)}
    wanting: defaultdict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        for name in case.earlier:
            wanting[name].append(index)
    granted: defaultdict[int, list[str]] = defaultdict(list)
    for name, wanted_by in wanting.items():
        owner = listed.get(name.lower())
        contenders = ([] if owner is None else [owner]) + wanted_by
        found = contenders[0] if len(contenders) == 1 else _whose(name, [(i, cases[i]) for i in contenders], settings.output)
        if found is not None and found != owner:
            granted[found].append(name)
    return [replace(case, earlier=tuple(granted[index])) if case.earlier else case for index, case in enumerate(cases)]


def _whose(name: str, contenders: Sequence[tuple[int, Case]], output: Path) -> int | None:
    """The first of the contenders whose case lies in OUTPUT/NAME; None if there is none among the first MOST_HASHED."""
    if not sidecar_path(output, name).is_file():
        return None
    return next(_holders(name, contenders[:MOST_HASHED], output), None)


def _holders(name: str, contenders: Sequence[tuple[int, Case]], output: Path) -> Iterator[int]:
    for index, case in contenders:
        with suppress(IFIMError, OSError):  # an input that cannot be read fails later, by its own name
            if holder_of(output, name, OpenedSource(case.source)) == "this":
                yield index


def settled(case: Case, output: Path, opened: OpenedSource, table: KeyTable | None = None) -> Case:
    """The case under the name of its folder in OUTPUT, which never holds the case of another input.

    table: of the pseudonyms, for a hidden case. Raises OutputError if all names are taken; OSError if the input has to be read
    and cannot be.
    """
    wanted = case.name if table is None else table.pseudonym(opened)
    return replace(case, name=name_for(output, wanted, opened, case.earlier), listed=case.name)
