"""Names that a file states and that are looked up in a folder: none may lead out of it."""

from __future__ import annotations


def is_plain_name(name: object) -> bool:
    """Whether a text names something in the folder that it is looked up in, on any operating system, and not beyond."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0")
