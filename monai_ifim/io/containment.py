"""Check of file names that come from a file: none may lead out of the folder in which it is looked up."""

from __future__ import annotations

LONGEST = 255  # bytes of a file name on nearly all file systems


def is_plain_name(name: object) -> bool:
    """True for the name of an entry right in a folder, on any operating system: no separators, no "..", not too long."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= LONGEST
