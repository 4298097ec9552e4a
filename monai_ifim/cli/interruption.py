"""Stopping a run by Ctrl-C or by the system, and how to go on after it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from monai_ifim.run.stop_request import StopRequest
    from monai_ifim.run.table import CaseRow

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FIRST = "\nstopping once the cases in hand are done; once more to stop at once\n"
SECOND = "\nstopped at once. {}\n"
SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def stopping(stop_request: StopRequest, ranks: int = 1) -> Iterator[None]:
    """Inside the block, SIGINT, SIGTERM and SIGHUP stop the run after the cases in progress; a second signal stops it at once.

    SIGHUP is never taken for the second: shell and system both send it when a terminal is closed.

    ranks: of several processes that torchrun started, each is sent more than one signal; torchrun itself ends them for good.
    What ends at once is as if it had been killed: whole files stay whole, and the next run removes the others.
    """

    def ask(number: int, _: FrameType | None) -> None:
        if stop_request.signal is None:
            stop_request.signal = number
            _say(FIRST if ranks == 1 else "")
        elif ranks == 1 and number != signal.SIGHUP:
            _say(SECOND.format(resume_hint()) + (SHOW_CURSOR if os.isatty(2) else ""))
            os._exit(128 + number)  # threads that read, compute or write are not waited for

    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup and the like stay in force
    before = {number: signal.signal(number, ask) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def with_hint() -> Iterator[None]:
    """Append to the reason of a stopped run how to continue it."""
    from monai_ifim.run.stop_request import StoppedError

    try:
        yield
    except StoppedError as stop:
        raise StoppedError(f"{stop} {resume_hint()}") from stop


def end_if_stopped(console: Console, stop_request: StopRequest, rows: list[CaseRow], cases: int) -> None:
    """If a signal ended the run: print how many cases remain and how to continue; exit status 128 + its number."""
    if stop_request.signal is None:
        return
    said = f"stopped by {signal.Signals(stop_request.signal).name}: {cases - len(rows)} of {cases} cases left. {resume_hint()}"
    console.print(said, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(128 + stop_request.signal)


def resume_hint() -> str:
    """The command line of this process, to run again."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "To go on, give the same torchrun command again."
    program = [sys.executable, "-m", "monai_ifim.cli.main"] if sys.argv[0].endswith(".py") else [Path(sys.argv[0]).name]
    if "--case-names" in sys.argv or "--case-names=hash" in sys.argv:  # names of files are not to be told
        return "To go on, give the same command again."
    again = " (--overwrite would make all cases again)" if "--overwrite" in sys.argv else ""
    return f"To go on{again}: {shlex.join([*program, *sys.argv[1:]])}"


def _say(text: str) -> None:
    """Write to standard error without buffering: a signal may arrive while something else is being written."""
    with suppress(OSError):  # it may be closed
        os.write(2, text.encode("utf-8", "replace"))
