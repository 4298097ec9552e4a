"""The inputs of cases, where they are found, against the SHA-256 that sidecars state of each of their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
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

Outcome = Literal["same", "absent"] | Finding


class Inputs:
    """Files and folders by their names, among which the inputs of cases are looked for."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._places: dict[str, list[Path]] = {}
        for path in paths:
            self._places.setdefault(path.name, []).append(path)

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

    def check(self, case: str, sidecar: Mapping[str, Any]) -> Outcome:
        """The input of a case: "same" if it is found with the content that the sidecar states, "absent" if it is not found."""
        stated = sidecar["input"]
        outcomes = [self._check(case, stated.get("file"), stated.get("files"), stated.get("series"))]
        beside = stated.get("beside")
        for entry in beside.values() if isinstance(beside, dict) else ():
            if isinstance(entry, dict) and entry.get("file") is not None:
                outcomes.append(self._check(case, entry["file"], entry.get("files"), None))
        found = next((each for each in outcomes if isinstance(each, Finding)), None)
        return found or ("absent" if "absent" in outcomes else "same")

    def _check(self, case: str, name: Any, files: Any, series: Any) -> Outcome:
        if not is_plain_name(name) or not isinstance(files, list) or not files:
            return "absent"
        first = ""
        for place in self._places.get(name, ()):
            differing = _differing(place, files, whole=series is None)
            if not differing:
                return "same"
            first = first or differing
        if not first:
            return "absent"
        said = f"the input {name} is not the one that was decomposed ({first})"
        cure = "name the right one with --input, or remove the folder of this case and give the command of the run again"
        return Finding(case, "input", f"{said}: {cure}.")


def _differing(place: Path, files: Sequence[Any], whole: bool) -> str:
    """What differs between the stated files and those at a place, in words; empty if nothing does."""
    folder = place if place.is_dir() else place.parent
    stated = {file["name"]: file for file in files if isinstance(file, dict) and is_plain_name(file.get("name"))}
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


def _below(path: Path) -> Iterator[Path]:
    if path.suffix.lower() == ".json" and path.is_file():
        for case in find_cases([path]):
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
