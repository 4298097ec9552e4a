"""The files that an input consists of, hashed with the reading, and the check that they are still the same afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_ifim.io.case_files import RUN_FILES, results_in
from monai_ifim.io.digests import Stamp, digest_of_lines, sha256_of_stream
from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.parts import files_of


@dataclass(frozen=True)
class HashedFile:
    """A file with its hex SHA-256. stamp: when it was hashed; settled: whether any change since then gives another stamp."""

    path: Path
    sha256: str
    stamp: Stamp
    settled: bool

    @property
    def name(self) -> str:
        """The base name."""
        return self.path.name

    def described(self) -> dict[str, Any]:
        """The entry of a sidecar."""
        return {"name": self.name, "sha256": self.sha256, "bytes": self.stamp.size}

    def is_same(self) -> bool:
        """True if the file of this path has the same content now: it is read again only if its stamp leaves that open."""
        try:
            if self.settled and Stamp.of(self.path.stat()) == self.stamp:
                return True
            return hash_file(self.path).sha256 == self.sha256
        except OSError:
            return False


def files_of_input(path: Path) -> tuple[Path, ...]:
    """The files of an input: of a folder, those right in it but hidden ones and results of earlier runs; of a file, `files_of`.

    Those of a run lie there if OUT is the folder of the input itself. Raises InputError, OSError.
    """
    if not path.is_dir():
        return files_of(path)
    names = {file.name for file in path.iterdir() if file.is_file()}
    results = {*RUN_FILES, *results_in(path, names)}
    return tuple(sorted(path / name for name in names - results if not name.startswith(".")))


def hash_file(path: Path) -> HashedFile:
    """Read a file and give its hash, with the stamp that it had before; raises OSError."""
    stamp = Stamp.of(path.stat())
    settled = stamp.settled
    with path.open("rb", buffering=0) as stream:
        return HashedFile(path, sha256_of_stream(stream), stamp, settled)


def digest_of_hashed(files: Iterable[HashedFile], by_hash: bool = False) -> str:
    """The SHA-256 of the lines `HASH  NAME` of several files, in their order or sorted."""
    lines = [f"{file.sha256}  {file.name}" for file in files]
    return digest_of_lines(sorted(lines) if by_hash else lines)


def refuse_changed(files: Iterable[HashedFile]) -> None:
    """Raise InputError, with the cure, if a file has another content than when it was hashed, or is gone."""
    for file in files:
        if not file.is_same():
            raise changed(file.path)


def changed(path: Path) -> InputError:
    """The error for a file that changed while its case was made."""
    return InputError(
        f"{path.name}: the file changed while its case was made: wait until nothing writes to it any more, and run the same "
        "command again."
    )
