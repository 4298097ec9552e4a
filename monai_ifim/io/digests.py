"""SHA-256 of files, and whether a file is still the one that was hashed. Links are followed."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

BLOCK = 2**20  # bytes read at a time
SETTLED = 2.0  # seconds after which a time stamp tells the next change apart: file systems round to as much
MOST_KNOWN = 4096  # files whose hashes are remembered


class Stamp(NamedTuple):
    """What tells a file from the one that lies there later, as far as the file system says."""

    device: int
    inode: int
    size: int
    modified: int  # ns
    changed: int  # ns; of its content, name or rights

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of a file by its `stat`."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def settled(self) -> bool:
        """True if a change from now on gives another stamp: the last one is longer ago than time stamps are rounded by."""
        return time.time() - max(self.modified, self.changed) / 1e9 > SETTLED


def sha256_of_stream(stream: BinaryIO) -> str:
    """Hex SHA-256 of the rest of an open file."""
    digest = hashlib.sha256()
    while block := stream.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hex SHA-256 of a file; raises OSError."""
    with path.open("rb", buffering=0) as stream:
        return sha256_of_stream(stream)


def sha256_known(path: Path) -> str:
    """`sha256_of_file`, which reads a file once in a process unless its stamp has changed since; raises OSError."""
    stamp = Stamp.of(path.stat())
    return _known(path, stamp) if stamp.settled else sha256_of_file(path)


def digest_of_files(files: Mapping[str, str]) -> str:
    """One hex SHA-256 for several files by their names and hashes: that of the lines `HASH  NAME`, sorted by name."""
    return digest_of_lines(f"{sha256}  {name}" for name, sha256 in sorted(files.items()))


def digest_of_lines(lines: Iterable[str]) -> str:
    """Hex SHA-256 of lines, which may hold any name of a file."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")).hexdigest()


@lru_cache(MOST_KNOWN)
def _known(path: Path, stamp: Stamp) -> str:  # the stamp is a part of the key
    return sha256_of_file(path)
