"""How a verb speaks: to people, to people who want to hear of failures only (--quiet), or to programs (--json)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from monai_ifim.cli.summary import case_line
from monai_ifim.options import on_command_line

if TYPE_CHECKING:
    from monai_ifim.run.table import CaseRow

JSON_VERSION = "1.0"  # of what --json prints


@dataclass
class Document:
    """What --json prints of a run, as it becomes known. output: the folder of results; page: its page, None if none was written;
    rows: of its cases; left: cases not begun when the run was stopped; unread: kinds of files that were not read; further:
    entries that this command alone has; failures: lines about what failed besides cases."""

    command: str
    output: Path | None = None
    page: Path | None = None
    rows: Sequence[CaseRow] = ()
    left: int = 0
    unread: dict[str, int] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)
    failures: Sequence[str] = ()

    def content(self, exit_status: int, error: str | None) -> dict[str, Any]:
        """All of it as plain data; docs/command_line.md describes it. error: what ended it, None if it came to its end."""
        counts = {status: sum(row.status == status for row in self.rows) for status in ("done", "kept", "failed")}
        return {
            "schema_version": JSON_VERSION,
            "command": self.command,
            "exit_status": exit_status,
            "error": error,
            "output": None if self.output is None else str(self.output),
            "page": None if self.page is None else str(self.page),
            "counts": counts | {"left": self.left},
            "unread": self.unread,
            "cases": [_described(row) for row in self.rows],
        } | self.further


@dataclass(frozen=True)
class Voice:
    """console: for people. quiet: they are told of failures only, on standard error. as_json: standard output is one JSON object.
    speaks: False for all but one of several processes, which say nothing."""

    console: Console
    quiet: bool
    as_json: bool
    speaks: bool

    @classmethod
    def of(cls, quiet: bool, as_json: bool, speaks: bool = True) -> Voice:
        """The voice of the options --quiet and --json."""
        return cls(Console(stderr=as_json, quiet=quiet or not speaks), quiet, as_json, speaks)

    @contextmanager
    def document(self, command: str) -> Iterator[Document]:
        """What is to be told of the run inside the block: with --json it is printed at the end, also of an error or a stop; with
        --quiet the cases that failed are."""
        told, status, error = Document(command), 0, None
        try:
            with only_on_standard_error() if self.as_json else nullcontext():
                yield told
        except typer.Exit as end:
            status = end.exit_code
            raise
        except SystemExit as end:  # by a signal
            status = end.code if isinstance(end.code, int) else 1
            raise
        except (Exception, KeyboardInterrupt) as raised:
            status, error = _ended_by(raised)
            raise
        finally:
            if self.speaks and self.quiet:
                _tell_failures(told)
            if self.speaks and self.as_json:
                typer.echo(json.dumps(told.content(status, error), indent=2, allow_nan=False))


def _tell_failures(told: Document) -> None:
    loud = Console(stderr=True)
    for line in (*(case_line(row) for row in told.rows if row.status == "failed"), *told.failures):
        loud.print(line, markup=False, highlight=False, soft_wrap=True)


def _ended_by(raised: BaseException) -> tuple[int, str]:
    """Exit status and words of what ended a verb, as `cli.main.main` has them."""
    if isinstance(raised, KeyboardInterrupt):
        return 130, "stopped by Ctrl-C before a case was begun"
    from monai_ifim.io.errors import explained

    return 1, on_command_line(explained(raised))


@contextmanager
def only_on_standard_error() -> Iterator[None]:
    """Inside the block all that is written to standard output, by child processes and compiled libraries too, goes to standard
    error."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # closed
        with redirect_stdout(sys.stderr):
            yield
        return
    try:
        with suppress(OSError):  # standard error is closed: what would go there is lost below
            os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _described(row: CaseRow) -> dict[str, Any]:
    """The columns of cases.parquet, null where nothing is known, and the case as a sentence."""
    from monai_ifim.run.sentences import case_sentence
    from monai_ifim.run.table import SCHEMA

    fields = {name: getattr(row, name) for name in SCHEMA.names}
    return {name: None if value == "" else value for name, value in fields.items()} | {"sentence": case_sentence(vars(row))}
