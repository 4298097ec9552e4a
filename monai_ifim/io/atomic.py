"""Files that are either whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

PARTIAL = ".partial-"


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path`, flush it to disk, then rename; nothing is left on failure.

    Raises OSError that names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content)
    except OSError as error:  # the disk's names the temporary file or none
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _write(path: Path, content: bytes) -> None:
    with NamedTemporaryFile(dir=path.parent, prefix=PARTIAL, suffix=path.suffix, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    try:
        temporary.chmod(0o666 & ~_current_umask())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text; what UTF-8 cannot hold, of a file name that is none, is spelt out as \\udc.., as in JSON."""
    write_bytes(path, content.encode("utf-8", "backslashreplace"))


def check_folder(folder: Path) -> None:
    """Raise OSError where no file can be made in a folder."""
    with NamedTemporaryFile(dir=folder, prefix=PARTIAL):
        pass


def remove_partial(folder: Path) -> None:
    """Remove what a process that was killed while writing into `folder` left there; no other may be writing into it now."""
    for file in folder.glob(f"{PARTIAL}*"):
        file.unlink(missing_ok=True)


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
