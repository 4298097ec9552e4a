"""Messages about an input whose names are not to be told: of its file, of what lies in and beside it, and of its folders."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from monai_ifim.core.errors import IFIMError
from monai_ifim.io.errors import InputError, single_line
from monai_ifim.io.source import Source

HIDDEN_FILE = "one of its files"
SHORTENED = 40  # characters of a name that some messages quote
DETACHED = (".hdr", ".img", ".hdr.gz", ".img.gz", ".head", ".brik", ".brik.gz", ".mhd", ".nhdr")
NAMED_FOLDERS = 5  # above a file, whose names are looked for by themselves; of the others, as parts of its path


def without_names(text: str, source: Source, instead: str) -> str:
    """The text with `instead` in place of the names of the input and of its folders, whole or as parts of paths.

    HIDDEN_FILE stands in place of names of files in it, or beside it.
    """
    path = source.path
    stem = path.name[: len(path.name) - len(source.suffix)]
    beside = [name for value in dict(source.beside).values() if isinstance(value, Path) for name in _spellings(value)]
    files = [name for name in _files(path) if name not in (path.name, stem)]
    text = _replaced(text, [*_spellings(path), path.name, stem], instead)
    return _replaced(text, [*beside, *files], HIDDEN_FILE)


def unnamed(path: Path, folder: Path, name: str) -> Path:
    """A link in `folder`, called `name`, to an input, for libraries that print the name of what they read.

    The path itself where it is one of the formats whose data lie beside their header.
    """
    suffix = Source(path).suffix
    if suffix.lower() in DETACHED:
        return path
    link = folder / f"{name}{suffix}"
    with suppress(FileExistsError):
        link.symlink_to(os.path.abspath(path))
    return link


@contextmanager
def untold_names(inputs: Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """In the block, errors tell the number of an input, and no name of it or of its folders and of files in it."""
    try:
        yield
    except IFIMError as error:
        if not inputs:
            raise
        text, numbered = str(error), [(f"input {number}", Path(path)) for number, path in enumerate(inputs, 1)]
        for number, path in sorted(numbered, key=lambda each: len(str(each[1])), reverse=True):
            text = _replaced(text, [str(path)], number)  # whole, before what several have in common
        for number, path in numbered:
            text = without_names(text, Source(path), number)
        raise InputError(text) from None


def _spellings(path: Path) -> Iterator[str]:
    """The path as given, absolute and without links, the path of its folder, each of its ends, and the names of its folders."""
    found = {str(path), os.path.abspath(path)}
    with suppress(OSError, RuntimeError, ValueError):
        found.add(str(path.resolve()))
    for each in sorted(found):
        parts = Path(each).parts
        yield each
        yield from ("/".join(parts[start:]) for start in range(1, len(parts)))
        yield str(Path(each).parent)
        yield from parts[1:][-NAMED_FOLDERS:]


def _files(path: Path) -> list[str]:
    """Names of the files in a folder, or else beside a file, and these without their suffixes."""
    with suppress(OSError, ValueError):
        found = list(path.rglob("*")) if path.is_dir() else list(path.parent.iterdir())
        return [*(each.name for each in found), *(each.name.split(".")[0] for each in found)]
    return []


def _replaced(text: str, names: Iterable[str], instead: str) -> str:
    """The text without the names, the longest first; a name is replaced where no letter or digit stands beside it."""
    whole = {form for name in names for form in (name, single_line(name))}
    spelled = {form for name in whole for form in (name, name[:SHORTENED]) if form.strip("./ ")}
    if not spelled:
        return text
    pattern = "|".join(re.escape(name) for name in sorted(spelled, key=len, reverse=True))
    return re.sub(rf"(?<!\w)(?:{pattern})(?!\w)", lambda _: instead, text)
