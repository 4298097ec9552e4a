"""Whether the files in the folder of a case are those that its sidecar states, by their SHA-256. No link is followed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from monai_ifim.io.case_files import LARGEST_SIDECAR, REMOVED_FIRST, SIDECAR, is_file_of
from monai_ifim.io.containment import is_plain_name, real_folder
from monai_ifim.io.digests import sha256_of_stream

Fault = Literal["missing", "altered", "no file", "unreadable", "no name", "not stated"]

FEW_BYTES = 2**23  # up to which one thread hashes all files of a case
THREADS = 4  # hashing does not hold Python's lock


@dataclass(frozen=True)
class FaultyFile:
    """A file of a case that is not what its sidecar says.

    "missing"; "altered": another content; "no file": a link, a folder or a pipe; "unreadable": no permission, or the disk fails;
    "no name": stated under a name that leads out of the folder; "not stated": called like a map of the case.
    """

    name: str
    fault: Fault


class CaseFolder:
    """The folder of a case, opened without following links (`opened`)."""

    def __init__(self, descriptor: int, case: str) -> None:
        self.descriptor, self.case = descriptor, case

    @classmethod
    @contextmanager
    def opened(cls, output: Path, case: str) -> Iterator[CaseFolder]:
        """OUT/CASE; raises LinkedFolderError for a link, OSError."""
        with real_folder(output / case, output) as descriptor:
            yield cls(descriptor, case)

    def names(self) -> list[str]:
        """Names of all that lies in it, sorted."""
        return sorted(os.listdir(self.descriptor))

    def sidecar(self) -> bytes:
        """The bytes of the case's sidecar; raises OSError, also if it is too large to be one or no file."""
        return read_in(self.descriptor, f"{self.case}{SIDECAR}", LARGEST_SIDECAR)

    def faults(self, written: Mapping[str, object], names: Collection[str]) -> list[FaultyFile]:
        """What is not as the sidecar says. written: its file names with their SHA-256; names: those that lie here."""
        found = [FaultyFile(name, "no name") for name in written if not is_plain_name(name)]
        stated = [name for name in written if is_plain_name(name)]
        if self._bytes(stated) > FEW_BYTES:
            with ThreadPoolExecutor(THREADS) as pool:
                faults = list(pool.map(lambda name: self._fault(name, written[name]), stated))
        else:
            faults = [self._fault(name, written[name]) for name in stated]
        found += [FaultyFile(name, fault) for name, fault in zip(stated, faults, strict=True) if fault is not None]
        others = (name for name in names if name not in written and is_file_of(self.case, name, REMOVED_FIRST))
        return found + [FaultyFile(name, "not stated") for name in others]

    def _bytes(self, names: Collection[str]) -> int:
        total = 0
        for name in names:
            try:
                total += os.stat(name, dir_fd=self.descriptor, follow_symlinks=False).st_size
            except OSError:
                continue
        return total

    def _fault(self, name: str, sha256: object) -> Fault | None:
        try:
            with open_regular(self.descriptor, name) as stream:
                return None if sha256_of_stream(stream) == sha256 else "altered"
        except FileNotFoundError:
            return "missing"
        except (OSError, ValueError) as error:
            return "no file" if getattr(error, "errno", None) in NO_FILE else "unreadable"


def read_regular(path: Path, root: Path, largest: int) -> bytes:
    """The bytes of a file below `root`, reached without following a link; raises OSError for what is no regular file, without
    waiting for a pipe, and for one of more than `largest` bytes."""
    with real_folder(path.parent, root) as folder:
        return read_in(folder, path.name, largest)


def read_in(folder: int, name: str, largest: int) -> bytes:
    """`read_regular` for a file of the folder of a descriptor."""
    with open_regular(folder, name) as stream:
        size = os.fstat(stream.fileno()).st_size
        content = stream.read(largest + 1) if size <= largest else b""
    if max(size, len(content)) > largest:
        raise OSError(errno.EFBIG, "too large for what it is", name)
    return content


NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR)  # of a link, of a socket, of a folder or a pipe


@contextmanager
def opened_folder(folder: int, name: str) -> Iterator[int]:
    """The descriptor of a folder in the folder of a descriptor, or of that itself for an empty name; raises OSError, also for a
    link."""
    descriptor = os.open(name or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def open_regular(folder: int, name: str) -> Iterator[BinaryIO]:
    """A file of the folder of a descriptor, opened to be read; raises OSError for what is no regular file, without waiting for a
    pipe or following a link."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    with open(descriptor, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EISDIR, "no regular file", name)
        yield stream
