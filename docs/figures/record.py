"""made.json: of each figure its hash, and the hashes of what it was drawn from; what is stale is found without drawing."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from docs.figures.catalogue import FIGURES, GROUPS, ROOT, inputs_of

RECORD = FIGURES / "made.json"
AGAIN = "draw it again: python -m docs.figures"
PAGES = ("README.md", "docs/*.md", "docs/reference/*.md")
LINKED = re.compile(r"\]\(\s*(?:docs/|\.\./)?figures/([\w.-]+)\)")

Record = dict[str, dict[str, dict[str, str]]]


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of what is missing."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def record_of(group: str) -> dict[str, dict[str, str]]:
    """The entry of a group as the files are now."""
    files = {name: digest(FIGURES / name) for name in GROUPS[group].files}
    return {"files": files, "inputs": {path: digest(ROOT / path) for path in inputs_of(group)}}


def read_record() -> Record:
    """Entries by group; none where no figure was made yet."""
    record: Record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    return record


def write_record(groups: list[str]) -> None:
    """Take the groups that were drawn just now into the record."""
    record = read_record() | {group: record_of(group) for group in groups}
    kept = {group: record[group] for group in GROUPS if group in record}
    RECORD.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def stale_figures() -> Iterator[str]:
    """A sentence for each figure of the record that is not what the command would make of the files as they are."""
    for group, stored in read_record().items():
        names, now = ", ".join(GROUPS[group].files), record_of(group)
        changed = [path for path, found in now["inputs"].items() if stored["inputs"].get(path) != found]
        if changed:
            yield f"{names}: {', '.join(changed)} changed since; {AGAIN} {group}"
        elif stored != now:
            yield f"{names}: not the file that was drawn; {AGAIN} {group}"


def older_figures() -> Iterator[str]:
    """A sentence for each group that the command has not drawn yet: its figures are older than the record."""
    record = read_record()
    for group in GROUPS:
        if group not in record:
            yield f"{', '.join(GROUPS[group].files)}: not drawn by the command yet; {AGAIN} {group}"


def unknown_figures() -> Iterator[str]:
    """A sentence for each figure that no module draws, that is missing, or that no page shows."""
    drawn = {name for group in GROUPS.values() for name in group.files}
    recorded = {name for group in read_record() for name in GROUPS[group].files}
    there = {path.name for path in FIGURES.iterdir() if path.suffix in (".png", ".svg")}
    pages = [page for pattern in PAGES for page in ROOT.glob(pattern)]
    shown = {name for page in pages for name in LINKED.findall(page.read_text(encoding="utf-8"))}
    for names, reason in (
        (there - drawn, "no module draws it: name it in docs/figures/catalogue.py, or delete it"),
        (recorded - shown, "no page shows it"),
        (shown - drawn, "a page shows it and no module draws it"),
    ):
        yield from (f"{name}: {reason}" for name in sorted(names))
