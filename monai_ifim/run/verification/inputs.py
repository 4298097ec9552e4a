"""The inputs of cases, where they are found, against the SHA-256 that sidecars state of each of their files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, Literal

from monai_ifim.core import IFIMError
from monai_ifim.io import InputError
from monai_ifim.io.case_files import PULLED
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.digests import sha256_known
from monai_ifim.io.input_files import files_of_input
from monai_ifim.io.source import there
from monai_ifim.run.cases import find_cases
from monai_ifim.run.verification.findings import Finding


class Inputs:
    """Files and folders by their names, among which the inputs of cases are looked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._places: dict[str, list[Path]] = {}
        for path in paths:
            self._places.setdefault(path.name, []).append(path)
        self._outcomes: dict[str, list[_Outcome]] = {}
        self._same: list[Path] = []  # inputs of cases, as they were decomposed
        self._of_cases: set[str] | None = None  # the same without links, once all are known

    @classmethod
    def given(cls, inputs: Sequence[Path]) -> Inputs:
        """Those named by the user: files, folders with all below, and the images of datalists. Raises InputError for a path where
        nothing is."""
        for path in inputs:
            if not there(path):
                raise InputError(f"{path}: no such file or folder: correct --input.")
        return cls(found for path in inputs for found in _below(path))

    @classmethod
    def near(cls, output: Path) -> Inputs:
        """Those in OUT, in the folder around it, in the current one, in the folders right in these two, and in OUT/dicom."""
        around = list(dict.fromkeys([output.resolve().parent, Path.cwd()]))
        places = [output, *around, *(folder for place in around for folder in _folders(place))]
        studies = _folders(output / PULLED, links=False)
        return cls(found for place in dict.fromkeys([*places, *studies]) for found in _entries(place))

    def check(self, case: str, sidecar: Mapping[str, Any], path: object = None) -> None:
        """Compare the input of a case with what its sidecar states. path: what the tables say of where it lay, if they do.

        What lies where it lay once, under its name, with another content, differs, unless it is the input of another case.
        """
        stated = sidecar["input"]
        outcomes = [self._check(stated.get("file"), stated.get("files"), stated.get("series"), _parts(path))]
        beside = stated.get("beside")
        for entry in beside.values() if isinstance(beside, dict) else ():
            if isinstance(entry, dict) and entry.get("file") is not None:
                outcomes.append(self._check(entry["file"], entry.get("files"), None, ()))
        self._outcomes[case] = outcomes

    def outcome(self) -> tuple[int, int, list[Finding]]:
        """After all cases: how many were compared, of how many an input was not found, and what differs."""
        counts: Counter[str] = Counter()
        findings = []
        for case, outcomes in self._outcomes.items():
            several = [self._settled(each) for each in outcomes]
            differing = next((each for each in several if isinstance(each, _Differing)), None)
            if differing is not None:
                findings.append(differing.finding(case))
            counts["absent" if differing is None and "absent" in several else "compared"] += 1
        return counts["compared"], counts["absent"], findings

    def _settled(self, outcome: _Outcome) -> _Outcome:
        """The outcome, "absent" for what differs only from inputs of other cases."""
        if isinstance(outcome, _Differing):
            if self._of_cases is None:
                self._of_cases = {os.path.realpath(place) for place in self._same}
            others = tuple(each for each in outcome.places if os.path.realpath(each[0]) not in self._of_cases)
            return replace(outcome, places=others) if others else "absent"
        return outcome

    def _check(self, name: Any, files: Any, series: Any, path: tuple[str, ...]) -> _Outcome:
        if not is_plain_name(name) or not isinstance(files, list) or not files:
            return "absent"
        differing = []
        for place in self._places.get(name, ()):
            why = _differing(place, files, whole=series is None)
            if not why:
                self._same.append(place)
                return "same"
            there = path[-1:] != (name,) or place.absolute().parts[-len(path) :] == path
            if there and _holds_any(place, files):
                differing.append((place, why))
        return _Differing(name, tuple(differing)) if differing else "absent"


@dataclass(frozen=True)
class _Differing:
    """An input that was found with another content: the places of its name, each with what differs there."""

    name: str
    places: tuple[tuple[Path, str], ...]

    def finding(self, case: str) -> Finding:
        """The line for it."""
        said = f"the input {self.name} is not the one that was decomposed ({self.places[0][1]})"
        cure = "name the right one with --input, or remove the folder of this case and give the command of the run again"
        return Finding(case, "input", f"{said}: {cure}.")


_Outcome = Literal["same", "absent"] | _Differing


def _parts(path: object) -> tuple[str, ...]:
    """The folders and the name of an input as far as the tables tell them plainly; none if they do not."""
    parts = PurePath(path).parts if isinstance(path, str) else ()
    return parts if all(map(is_plain_name, parts)) else ()


def _differing(place: Path, files: Sequence[Any], whole: bool) -> str:
    """What differs between the stated files and those at a place, in words; empty if nothing does."""
    folder = place if place.is_dir() else place.parent
    stated = {file["name"]: file for file in _plain(files)}
    if len(stated) != len(files):
        return "its files are not stated plainly"
    try:
        for name, file in stated.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != file.get("bytes") or sha256_known(path) != file.get("sha256"):
                return f"{name} has another content"
        further = sorted({path.name for path in files_of_input(place)} - set(stated)) if whole else []
    except (OSError, IFIMError):
        return "it cannot be read"
    return f"{further[0]} is new" if further else ""


def _holds_any(place: Path, files: Sequence[Any]) -> bool:
    """True unless it is a folder with none of the files, which is merely called like the input, as a case's folder is."""
    return not place.is_dir() or any((place / file["name"]).exists() for file in _plain(files))


def _plain(files: Sequence[Any]) -> list[dict[str, Any]]:
    """Those of the stated files that have plain names."""
    return [file for file in files if isinstance(file, dict) and is_plain_name(file.get("name"))]


def _below(path: Path) -> Iterator[Path]:
    if path.suffix.lower() == ".json" and path.is_file():
        for case in (each for each in find_cases([path]) if not each.refusal):
            yield case.source.path
            yield from (value for _, value in case.source.beside if isinstance(value, Path))
        return
    yield path
    for place, folders, files in os.walk(path):
        yield from (Path(place, name) for name in (*sorted(folders), *sorted(files)))


def _entries(place: Path) -> list[Path]:
    try:
        return sorted(place.iterdir())
    except OSError:
        return []


def _folders(place: Path, links: bool = True) -> list[Path]:
    try:
        with os.scandir(place) as entries:
            return sorted(Path(each.path) for each in entries if each.is_dir(follow_symlinks=links) and each.name[0] != ".")
    except OSError:
        return []
