"""`verify_results`: a folder of results against all that its records state."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_ifim.io import InputError, ModelIdentity, identify_bundle
from monai_ifim.io.atomic import PARTIAL
from monai_ifim.io.case_files import AUDIT_LOG, PAGES, PULLED, RUN_FILES, SIDECAR, UNFINISHED, is_file_of
from monai_ifim.io.containment import real_folder
from monai_ifim.io.installation import bundles_folder
from monai_ifim.run.verification.cases import CheckedCase, check_case
from monai_ifim.run.verification.findings import Finding, Verification
from monai_ifim.run.verification.inputs import Inputs
from monai_ifim.run.verification.tables import RECORD, RunFiles, read_run_files

SHOWN = 6  # files of a bundle that a line names


def verify_results(
    output: Path,
    bundle: Path | None = None,
    inputs: Sequence[Path] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Verification:
    """Compare every file of the results in OUT with the SHA-256 that was taken when it was written; nothing is made or changed.

    Files of cases, tables against sidecars, run.json and page; the bundle in `bundle`, by default one of the package; the inputs,
    where they lie at or below `inputs`, by default near OUT. No code of the bundle runs, and no link below OUT is followed.
    report: called with the number of cases done and their total. Raises InputError for a folder that holds no results, OSError.
    """
    with real_folder(output, output) as folder:
        names, findings, notes = _listed(folder)
        if not names and not set(RUN_FILES) & set(os.listdir(folder)):
            raise InputError(f"{output}: no results of monai-ifim in it: name the folder that was given to --output.")
        run = read_run_files(folder)
    findings += run.findings
    bundles = _Bundles(bundle)
    places = Inputs.near(output) if inputs is None else Inputs.given(inputs)
    files = 0
    for done, name in enumerate(names):
        report(done, len(names))
        case = check_case(output, name)
        findings += case.findings
        notes += case.notes
        files += case.files
        if case.sidecar is not None and case.row is not None:
            findings += run.check_row(name, case.row)
            unlisted = run.unlisted(name)
            if unlisted is not None:  # an earlier run's, if the tables are those of the last one
                (notes if run.proven else findings).append(unlisted)
            bundles.add(case, run)
            places.check(name, case.sidecar, run.path_of(name))
    report(len(names), len(names))
    compared, absent, differing = places.outcome()
    findings += [*differing, *run.check_rows(set(names)), *bundles.findings()]
    notes += [*bundles.notes(), *_unseen(absent)]
    return Verification(len(names), files, compared, bundles.known, tuple(findings), tuple(notes))


def _unseen(absent: int) -> Iterator[Finding]:
    if absent:
        yield Finding("inputs", "absent", f"of {absent} cases were not found and not checked: name their folder, --input PATH.")


def _listed(folder: int) -> tuple[list[str], list[Finding], list[Finding]]:
    """The case folders in OUT, and what else lies there."""
    cases: list[str] = []
    findings: list[Finding] = []
    notes: list[Finding] = []
    for name in sorted(os.listdir(folder)):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if name.startswith(PARTIAL):
            said = "is unfinished: a run writes it now, or was killed then"
            findings.append(Finding(name, "unfinished", f"{said}. Wait for it, or give its command again, which removes it."))
        elif stat.S_ISDIR(mode):
            if _is_case(folder, name):
                cases.append(name)
            elif name not in (PAGES, PULLED) and not name.startswith("."):
                notes.append(Finding(name, "unknown", "is no folder of a case."))
        elif stat.S_ISLNK(mode) and name not in RUN_FILES:
            findings.append(Finding(name, "no file", "is a link, which is not followed: results lie in real folders. Remove it."))
        elif name not in (*RUN_FILES, AUDIT_LOG) and not name.startswith("."):
            notes.append(Finding(name, "unknown", "is no file of a run."))
    return cases, findings, notes


def _is_case(folder: int, name: str) -> bool:
    """True for a folder that holds a sidecar of its name, or what an interrupted run left of a case."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except OSError:
        return True  # `check_case` says why
    try:
        within = os.listdir(descriptor)
    finally:
        os.close(descriptor)
    return f"{name}{SIDECAR}" in within or UNFINISHED in within or any(is_file_of(name, each) for each in within)


class _Bundles:
    """The bundles that the sidecars state, against that of run.json and the one that lies there."""

    def __init__(self, root: Path | None) -> None:
        self._given = None if root is None else (root.name, identify_bundle(root))
        self._stated: dict[str | None, tuple[str, int, Mapping[str, Any]]] = {}  # first case, number of cases, the model
        self._mixed: list[Finding] = []

    @property
    def known(self) -> bool:
        """True if there was a bundle to compare with."""
        return bool(self._stated) and all(self._found(sha256) for sha256 in self._stated)

    def add(self, case: CheckedCase, run: RunFiles) -> None:
        """Take the bundle of a case into account."""
        model = case.sidecar["model"] if case.sidecar is not None else {}
        sha256 = model.get("bundle_sha256")
        sha256 = sha256 if isinstance(sha256, str) else None
        first, count, _ = self._stated.get(sha256, (case.name, 0, model))
        self._stated[sha256] = (first, count + 1, model)
        of_run = run.record.get("bundle") if run.record is not None else None
        of_last = of_run.get("bundle_sha256") if isinstance(of_run, dict) else None
        listed = run.rows is not None and case.name in run.rows
        if listed and of_last is not None and of_last != sha256:
            said = f"states another bundle than {RECORD}: give the command of the run again, which makes this case again."
            self._mixed.append(Finding(f"{case.name}/{case.name}{SIDECAR}", "bundle", said))

    def findings(self) -> Iterator[Finding]:
        """Cases of another bundle than the one given."""
        yield from self._mixed
        if self._given is None:
            return
        name, identity = self._given
        for sha256, (first, count, model) in self._stated.items():
            if sha256 != identity.bundle_sha256:
                which = f"{first} was" if count == 1 else f"{count} cases, {first} the first, were"
                said = f"{which} made by another bundle than this ({_difference(model, identity)})"
                yield Finding(name, "bundle", f"{said}: give the right one, or the command of the run again.")

    def notes(self) -> Iterator[Finding]:
        """Bundles that were not found."""
        if self._given is None and self._stated and not self.known:
            yield Finding("bundle", "absent", "was not checked: name its folder, --bundle DIR.")

    def _found(self, sha256: str | None) -> bool:
        return self._given is not None or sha256 in self._shipped

    @cached_property
    def _shipped(self) -> set[str | None]:
        """The hashes of the bundles that come with the package."""
        return {identify_bundle(root).bundle_sha256 for root in bundles_folder().iterdir() if (root / "configs").is_dir()}


def _difference(model: Mapping[str, Any], identity: ModelIdentity) -> str:
    """Which files of a bundle differ from those that a sidecar states."""
    stated = model.get("files")
    if not isinstance(stated, dict):
        return "its sidecar does not state its files"
    names = sorted(name for name in {*stated, *identity.files} if stated.get(name) != identity.files.get(name))
    return ", ".join(names[:SHOWN]) + (" and others" if len(names) > SHOWN else "")
