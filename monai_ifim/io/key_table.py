"""`KeyTable`: pseudonyms of inputs by keyed hash, and the file beside OUT that holds the key and says whose each is."""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import BinaryIO, Self

from monai_ifim.io.errors import OutputError
from monai_ifim.io.opened_source import OpenedSource

SUFFIX = ".case-names.jsonl"
KEY_BYTES = 32
DIGITS = 16  # hexadecimal, of HMAC-SHA-256
PSEUDONYM = re.compile(rf"case-[0-9a-f]{{{DIGITS}}}(-[0-9a-f]+)?")


class KeyTable:
    """The pseudonyms of one OUT. The file is OUT.case-names.jsonl beside OUT, readable and writable by its owner only.

    Its first line holds the key, each further one a pseudonym and the path of its input; of several lines for a pseudonym the
    last holds. Processes and threads may use it at the same time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0  # bytes
        self._key = b""
        self._inputs: dict[str, str] = {}
        with self._locked():
            pass

    @classmethod
    def beside(cls, output: Path) -> Self:
        """The table of OUTPUT, made with a new key if there is none. Raises OutputError, with the cure, if it cannot be kept."""
        folder = Path(os.path.realpath(output))
        if folder == folder.parent:
            raise OutputError(f"{output}: the table of case names cannot lie beside this folder: choose another --output.")
        if any(not PSEUDONYM.fullmatch(path.parent.name) for path in folder.glob("*/*_ifim.json")):
            raise OutputError(
                f"{output}: holds cases that are named after their files: choose another --output for pseudonyms, or remove them."
            )
        return cls(_table_of(folder))

    def provisional(self, text: str) -> str:
        """A pseudonym of a text, for an input that is not yet read."""
        return self._name("listed", text, "")

    def pseudonym(self, opened: OpenedSource) -> str:
        """The pseudonym of an input: the same for the same content, wherever it lies by then.

        Two inputs of the same content at two paths that are both there have two. Raises OSError if it cannot be read.
        """
        identity, path = _identity(opened), str(opened.source.path.absolute())
        with self._locked() as file:
            for number in count():
                name = self._name("input", identity, str(number))
                holder = self._inputs.get(name)
                if holder == path:
                    return name
                if holder is None or not _both_there(holder, path):
                    self._append(file, {"case": name, "input": path})
                    return name
        raise AssertionError("unreachable")

    def _name(self, *parts: str) -> str:
        text = json.dumps(parts).encode("ascii")
        return f"case-{hmac.new(self._key, text, 'sha256').hexdigest()[:DIGITS]}"

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, which nobody else reads or changes in the block; what others added to it is read first."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as error:
            raise OutputError(
                f"{self.path}: the table of case names cannot be kept there ({error.strerror}): choose an --output beside which "
                "you can write."
            ) from error
        with os.fdopen(descriptor, "r+b") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            self._check(os.fstat(file.fileno()))
            self._catch_up(file)
            yield file

    def _check(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise OutputError(
                f"{self.path}: the table of case names is not a file of yours: remove it, or choose another --output."
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise OutputError(
                f"{self.path}: others may read the table of case names: `chmod 600` it; where its file system keeps no "
                "permissions, choose an --output on another."
            )

    def _catch_up(self, file: BinaryIO) -> None:
        file.seek(self._read)
        text = file.read()
        if not text and not self._read:
            self._append(file, {"key": secrets.token_hex(KEY_BYTES)})
            return
        try:
            if (self._read or b"\n" in text) and not text.endswith(b"\n"):  # of a process killed while it wrote this line
                text = text[: text.rfind(b"\n") + 1]
                file.truncate(self._read + len(text))
            for line in text.splitlines():
                self._take(json.loads(line))
        except (ValueError, LookupError, TypeError) as error:
            raise OutputError(
                f"{self.path}: the table of case names is damaged: restore it from a backup; if there is none, remove it, and "
                "all cases get new names."
            ) from error
        self._read += len(text)

    def _take(self, line: Mapping[str, str]) -> None:
        if self._key:
            self._inputs[line["case"]] = line["input"]
            return
        self._key = bytes.fromhex(line["key"])
        if len(self._key) != KEY_BYTES:
            raise ValueError("no key")

    def _append(self, file: BinaryIO, line: Mapping[str, str]) -> None:
        text = json.dumps(line).encode("ascii") + b"\n"
        file.seek(0, os.SEEK_END)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        self._take(line)
        self._read += len(text)


def refuse_told_names(output: Path) -> None:
    """Raise OutputError if OUTPUT holds cases under pseudonyms: names of files beside them would tell whose they are."""
    folder = Path(os.path.realpath(output))
    if not os.path.lexists(_table_of(folder)):
        return
    if any(PSEUDONYM.fullmatch(path.parent.name) for path in folder.glob("*/*_ifim.json")):
        raise OutputError(
            f"{output}: holds cases under pseudonyms, whose names of files it must not tell: give --case-names hash again "
            "(in Python, case_names='hash'), or choose another --output."
        )


def _table_of(output: Path) -> Path:
    return output.with_name(f"{output.name}{SUFFIX}")


def _identity(opened: OpenedSource) -> str:
    source = opened.source
    beside = {key: value["sha256"] for key, value in opened.beside.items()}
    return json.dumps([opened.digest, source.frame, source.series, opened.resampled, beside], sort_keys=True)


def _both_there(one: str, other: str) -> bool:
    """True if two paths are two files or folders."""
    with suppress(OSError, ValueError):
        return not os.path.samefile(one, other)
    return os.path.exists(one) and os.path.exists(other)
