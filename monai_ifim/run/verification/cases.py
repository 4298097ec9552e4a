"""The case folders below OUT against their sidecars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ifim.core import IFIMError
from monai_ifim.io.atomic import PARTIAL
from monai_ifim.io.case_files import SIDECAR, UNFINISHED
from monai_ifim.io.containment import LinkedFolderError
from monai_ifim.io.errors import single_line
from monai_ifim.io.seal import is_unaltered
from monai_ifim.io.sidecar import SEAL, parse_sidecar
from monai_ifim.io.written_files import CaseFolder
from monai_ifim.run.table import CaseRow, row_from_sidecar
from monai_ifim.run.verification.findings import LONGEST_NAME, Finding

AGAIN = "give the command of the run again, which makes this case again"
REMOVE = "remove the folder {case}, then give the command of the run again, which makes the case of its input if it has none"
OF_FAULTS = {
    "missing": f"is missing: {AGAIN}.",
    "altered": f"is another file than was written: {AGAIN}.",
    "no file": f"is a link, a folder or a pipe in place of the file that was written: remove it, then {AGAIN}.",
    "unreadable": "cannot be read: get the right to read it, or check the disk.",
    "no name": f"is stated by the sidecar and leads out of its folder, where nothing is read: {AGAIN}.",
    "not stated": f"is called like a map of the case and is none: move it away, or {AGAIN}.",
}
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


@dataclass(frozen=True)
class CheckedCase:
    """A case folder as it was found. sidecar: None if it cannot be used; row: what the tables must say; files: number hashed."""

    name: str
    sidecar: Mapping[str, Any] | None
    row: CaseRow | None
    files: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]


def check_case(output: Path, case: str) -> CheckedCase:
    """Compare OUT/CASE with its sidecar, which may say anything."""
    findings: list[Finding] = []
    notes: list[Finding] = []
    content, files = None, 0
    try:
        with CaseFolder.opened(output, case) as folder:
            names = folder.names()
            content = _sidecar(folder, case, findings)
            written = _written(content, case, findings)
            if written is not None:
                findings += [
                    Finding(f"{case}/{each.name[:LONGEST_NAME]}", each.fault, OF_FAULTS[each.fault])
                    for each in folder.faults(written, names)
                ]
                files = len(written)
            expected = {
                *(written or ()),
                f"{case}{SIDECAR}",
                UNFINISHED,
                *(finding.place.partition("/")[2] for finding in findings),
            }
            for name in names:
                if name.startswith(PARTIAL):
                    findings.append(_partial(f"{case}/{name}"))
                elif name not in expected and written is not None:
                    notes.append(Finding(f"{case}/{name}", "unknown", "is no file of the case."))
    except LinkedFolderError:
        findings.append(
            Finding(case, "no file", "is a link, which is not followed: results lie in real folders. Remove the link.")
        )
    except OSError as error:
        findings.append(
            Finding(case, "unreadable", f"cannot be read ({error.strerror}): get the right to read it, or check the disk.")
        )
    row = None if content is None else _row(case, content, findings)
    return CheckedCase(case, None if row is None else content, row, files, tuple(findings), tuple(notes))


def _sidecar(folder: CaseFolder, case: str, findings: list[Finding]) -> dict[str, Any] | None:
    """The content of the sidecar, None if it is missing or damaged."""
    place = f"{case}/{case}{SIDECAR}"
    try:
        text = folder.sidecar()
    except FileNotFoundError:
        findings.append(Finding(place, "missing", f"is missing, as an interrupted run leaves a case: {AGAIN}."))
        return None
    except OSError as error:
        findings.append(Finding(place, "unreadable", f"cannot be read ({error.strerror}): remove it, then {AGAIN}."))
        return None
    try:
        content = parse_sidecar(f"{case}{SIDECAR}", text)
    except IFIMError as error:
        said = single_line(str(error)).partition(": ")[2]
        findings.append(Finding(place, "damaged", f"{said[:LONGEST_NAME]} To mend it, {AGAIN}."))
        return None
    if content.get("scene", f"{case}.mrml") != f"{case}.mrml":
        findings.append(Finding(place, "foreign", f"is the sidecar of another case: {REMOVE.format(case=case)}."))
        return None
    if "written" in content and not is_unaltered(text, SEAL):
        findings.append(Finding(place, "altered", f"was altered since it was written: {AGAIN}."))
    return content


def _written(content: Mapping[str, Any] | None, case: str, findings: list[Finding]) -> Mapping[str, object] | None:
    """What the sidecar states as written; None if that cannot be told."""
    if content is None:
        return None
    place = f"{case}/{case}{SIDECAR}"
    if "written" not in content:
        said = (
            "was written by an earlier version, which did not state the SHA-256 of each file: nothing can be proven of this case"
        )
        findings.append(Finding(place, "unproven", f"{said}. To prove it from now on, {AGAIN}."))
        return None
    written = content["written"]
    if not isinstance(written, dict):
        findings.append(Finding(place, "damaged", f"does not name the files of the case: {AGAIN}."))
        return None
    findings += [
        Finding(
            f"{case}/{str(name)[:LONGEST_NAME]}", "not stated", f"is a file of the case whose SHA-256 its sidecar lacks: {AGAIN}."
        )
        for name in _needed(content)
        if name not in written
    ]
    return written


def _needed(content: Mapping[str, Any]) -> Iterator[str]:
    """The names that a sidecar gives elsewhere than under `written`, as far as they are names."""
    files = content.get("files")
    of_maps = [file.get("file") for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    maps = content.get("parametric_maps")
    several = [*of_maps, *(maps if isinstance(maps, list) else []), content.get("scene"), content.get("planes")]
    yield from (name for name in several if isinstance(name, str))


def _row(case: str, content: Mapping[str, Any], findings: list[Finding]) -> CaseRow | None:
    try:
        return row_from_sidecar(case, "done", content)
    except DAMAGE as error:
        said = single_line(str(error)).partition(": ")[2]
        findings.append(Finding(f"{case}/{case}{SIDECAR}", "damaged", f"{said[:LONGEST_NAME]} To mend it, {AGAIN}."))
        return None


def _partial(place: str) -> Finding:
    said = "is unfinished: a run writes it now, or was killed then"
    return Finding(place, "unfinished", f"{said}. Wait for the run, or give its command again, which removes it.")
