"""Files that are either whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

PARTIAL = ".partial-"


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` under a temporary name beside `path`, flush it to disk, then rename; nothing is left on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
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
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def remove_partial(folder: Path) -> None:
    """Remove what a process that was killed while writing into `folder` left there; no other may be writing into it now."""
    for file in folder.glob(f"{PARTIAL}*"):
        file.unlink(missing_ok=True)


def _current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
