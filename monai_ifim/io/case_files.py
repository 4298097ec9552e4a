"""Names of the files of a case, and which files of a folder are results of earlier runs: those that a sidecar there names."""

from __future__ import annotations

import json
import os
import re
from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

SIDECAR = "_ifim.json"
UNFINISHED = ".ifim-unfinished"  # lies in a case's folder while its files are written and no sidecar tells whose they are
REMOVED_FIRST = ("_ifim_*.nii.gz", "_ifim_*.dcm", ".mrml", ".mrb")  # before a case is written anew
NO_IMAGES = (".mrml", ".mrb", ".ctbl", ".tsv")  # sidecars before 2.2 do not name all of them
OTHERS = ("_planes.npz", "_*.ctbl", "_spectrum*.tsv", SIDECAR)
TABLES = ("cases.csv", "cases.parquet")
COORDINATES = "coordinates.csv"  # beside the tables, where coordinates were asked for
RUN_FILES = (*TABLES, COORDINATES, "run.json", "index.html")  # of a run, right in OUT
AUDIT_LOG = "pacs-audit.jsonl"  # what `pacs` did, unless it records it elsewhere
PAGES = "pages"  # the folder in OUT that holds the pages of single cases which the page of the run names
OWN_PAGE = re.compile(r"case-\d+\.html")  # the name of such a page
PULLED = "dicom"  # the folder in OUT that holds what was pulled from a PACS
LARGEST_SIDECAR = 2**26  # bytes; a thousand eigenvectors take a hundredth of it
LARGEST_TABLE = 2**30  # bytes of cases.csv, cases.parquet
LARGEST_RECORD = 2**28  # bytes of run.json


def sidecar_path(output: Path, case: str) -> Path:
    """Path of the case's sidecar, which exists only once the case is whole."""
    return output / case / f"{case}{SIDECAR}"


def is_file_of(case: str, name: str, patterns: Collection[str] = (*REMOVED_FIRST, *OTHERS)) -> bool:
    """True for a name that fits one of the patterns of the case's files."""
    return name.startswith(case) and any(fnmatchcase(name[len(case) :], pattern) for pattern in patterns)


def needless_marks(case: str, names: Collection[str]) -> tuple[str, ...]:
    """The mark UNFINISHED among the files of a case that has a sidecar: its run was killed before it removed the mark."""
    return (UNFINISHED,) if UNFINISHED in names and f"{case}{SIDECAR}" in names else ()


def results_in(folder: Path, names: Collection[str]) -> frozenset[str]:
    """Which of the names of files in a folder are results: what a sidecar there names, or what an interrupted run left.

    A file that is merely called like a result is none. A damaged sidecar stands for all files that are called like its case's.
    """
    cases = [name.removesuffix(SIDECAR) for name in names if name.endswith(SIDECAR)]
    if UNFINISHED in names:
        own = Path(os.path.abspath(folder)).name
        return frozenset(name for name in names if is_file_of(own, name)) | results_in(folder, set(names) - {UNFINISHED})
    in_order = sorted(names)
    return frozenset(name for case in cases for name in _named(folder, case, in_order))


def _named(folder: Path, case: str, names: Sequence[str]) -> Iterator[str]:
    """Names, among those in order, of the files that a case's sidecar states."""
    alike = []
    for name in names[bisect_left(names, case) :]:
        if not name.startswith(case):
            break
        alike += [name] if is_file_of(case, name) else []
    if len(alike) < 2:  # the sidecar alone
        return
    try:
        content = _read(folder / f"{case}{SIDECAR}")
    except (ValueError, RecursionError):
        yield from alike
        return
    stated = set(_stated(content))
    if stated:
        stated.add(f"{case}{SIDECAR}")
    yield from (name for name in alike if name in stated or (stated and name.endswith(NO_IMAGES)))


def _read(sidecar: Path) -> Any:
    """The content of a sidecar; None for what cannot be one; raises ValueError, RecursionError for a damaged one."""
    try:
        if not sidecar.is_file() or sidecar.stat().st_size > LARGEST_SIDECAR:
            return None
        text = sidecar.read_bytes()
    except OSError:
        return None
    return json.loads(text)


def _stated(content: Any) -> Iterator[str]:
    """Names of files that a sidecar of any version states."""
    if not isinstance(content, dict) or "schema_version" not in content:
        return
    files = content.get("files")
    several = [file.get("file") for file in files if isinstance(file, dict)] if isinstance(files, list) else []
    for name in ("parametric_maps", "written"):  # a list, and a mapping of names to hashes
        value = content.get(name)
        several += list(value) if isinstance(value, (list, dict)) else []
    yield from (name for name in (*several, content.get("planes"), content.get("scene")) if isinstance(name, str))
