"""The audit trail of `pacs`: who pulled which series of a study, with which bundle, and which instances were stored in it.

A file of JSON lines to which lines are only added, each flushed to disk before the step that it announces. It holds UIDs, and
names of users and machines: no secrets, and nothing else of a patient's.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import pwd
import secrets
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from monai_ifim.core import IFIMError
from monai_ifim.io import OutputError
from monai_ifim.io.containment import real_folder
from monai_ifim.io.dicomweb.client import ServerError
from monai_ifim.io.errors import explained, single_line

APPENDING = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
CURE = "nothing is pulled or stored without a line in it: choose another file with --audit-log"


class AuditTrail:
    """Records the steps of one run.

    path: the file, readable by its owner alone; None records nothing. about: facts that all further lines state.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.about: dict[str, Any] = {"run": secrets.token_hex(8), **_who()}

    @contextmanager
    def step(self, name: str, **facts: Any) -> Iterator[dict[str, Any]]:
        """A step: a line with the outcome "begun" before it, and one with "done", "refused", "failed" or "interrupted" after it.

        The dictionary takes further facts for the second line, also another `outcome`. Raises OutputError if a line cannot be
        written; before the step, so that it does not take place.
        """
        self.record(name, "begun", **facts)
        found: dict[str, Any] = {}
        try:
            yield found
        except BaseException as error:
            outcome, reason = _ending(error)
            with suppress(OutputError):  # the error itself is told
                self.record(name, **(facts | found | {"outcome": outcome, "reason": reason}))
            raise
        self.record(name, **({"outcome": "done"} | facts | found))

    def record(self, step: str, outcome: str, **facts: Any) -> None:
        """Add a line; raises OutputError if it cannot be written."""
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": now, "step": step, "outcome": outcome, **self.about, **facts})
        try:
            _append(self.path, line)
        except OSError as error:
            raise OutputError(f"{self.path}: the audit log cannot be written ({error.strerror}); {CURE}.") from error


def _append(path: Path, line: str) -> None:
    """Add a line and flush it to disk; the last line, if a kill cut it short, is ended before."""
    with real_folder(path.parent, path.parent, make=True) as folder:
        descriptor = os.open(path.name, APPENDING, 0o600, dir_fd=folder)
        try:
            _check_own(path, os.fstat(descriptor))
            os.fchmod(descriptor, 0o600)  # whatever it was before
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            content = f"{chr(10) if torn else ''}{line}\n".encode()
            if os.write(descriptor, content) != len(content):
                raise OSError(None, "only a part of a line was taken")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_own(path: Path, state: os.stat_result) -> None:
    """Raise OutputError for anything but a file of this user's with one name."""
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_nlink != 1:
        raise OutputError(f"{path}: the audit log is no file of this user's with this one name; {CURE}.")


def _who() -> dict[str, Any]:
    """The user by the system's account, not by variables that anybody can set; the machine and the process."""
    number = os.getuid()
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:  # a container without the account
        name = None
    return {"user": name, "user_id": number, "host": platform.node(), "process": os.getpid()}


def _ending(error: BaseException) -> tuple[str, str]:
    """Outcome and reason of a step that raised."""
    status = getattr(error, "exit_code", getattr(error, "code", None))  # of a command that ends by itself
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "SIGINT"
    if isinstance(status, int) and not isinstance(error, IFIMError):
        names = {128 + number: number.name for number in (signal.SIGINT, signal.SIGTERM)}
        return ("interrupted", names[status]) if status in names else ("failed", f"exit status {status}")
    if isinstance(error, (ServerError, OutputError)):
        return "failed", single_line(str(error))
    if isinstance(error, IFIMError):
        return "refused", single_line(str(error))
    return "failed", explained(error) if isinstance(error, OSError) else type(error).__name__  # its text may be of any kind


UNRECORDED = AuditTrail(None)
