"""Names that a file states and that are looked up in a folder: none may lead out of it."""

from __future__ import annotations

LONGEST = 255  # bytes of a file's name, on nearly all file systems


def is_plain_name(name: object) -> bool:
    """Whether a text names something in the folder that it is looked up in, on any operating system, and not beyond."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= LONGEST
