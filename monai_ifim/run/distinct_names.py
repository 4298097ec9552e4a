"""Distinct names for the cases of a list. Each is a function of its input's own path wherever that name is free."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from monai_ifim.io import Source
from monai_ifim.io.case_names import SUFFIXES, bounded_name, digits_of, name_of

FOLDERS_TRIED = 2  # folders above an input whose names an earlier run may have put before its own


@dataclass(frozen=True)
class Located:
    """A source, the folders below what the user named that belong to its name, and a name that replaces that of its path.

    refusal: why there is no image at it.
    """

    source: Source
    folders: tuple[str, ...] = ()
    label: str | None = None
    refusal: str = ""

    @property
    def name(self) -> str:
        """The name that the source has whatever else is in the list."""
        return self.source.name_in(self.folders) if self.label is None else self.label


def distinct_names(located: Sequence[Located]) -> list[str]:
    """A name for each source, in their order. Of sources that want one name the first gets it.

    Each other gets, by its own path, its suffix, the folders that it lies in, or a part of the hash of its path. Names that
    differ only in the case of letters count as equal, because some file systems ignore it.
    """
    wanted = [each.name for each in located]
    first: dict[str, int] = {}
    for index, name in enumerate(wanted):
        first.setdefault(name.lower(), index)
    taken = set(first)
    names = []
    for index, name in enumerate(wanted):
        if first[name.lower()] != index:
            name = next(each for each in _others(located[index], name, located[first[name.lower()]]) if each.lower() not in taken)
            taken.add(name.lower())
        names.append(name)
    return names


def names_elsewhere(located: Located) -> tuple[str, ...]:
    """Names that the source may have had in another list of cases, its own among them: as few as are likely."""
    source, name = located.source, located.name
    names = [name]
    if located.label is None:
        above = Path(os.path.abspath(source.path)).parent.parts[1:]
        above = above[: len(above) - len(located.folders)]
        names += [source.name, bounded_name(f"{name}{_suffix_in_name(source)}")]
        names += [bounded_name(f"{name_of(above[-depth:])}_{name}") for depth in range(1, min(FOLDERS_TRIED, len(above)) + 1)]
    return tuple(dict.fromkeys([*names, f"{name}-{digits_of(_whole(source))}"]))


def _suffix_in_name(source: Source) -> str:
    return source.suffix.replace(".", "_").lower()


def _whole(source: Source) -> str:
    """All that tells the source from others at the same place."""
    return "\0".join(map(repr, (os.path.abspath(source.path), source.frame, source.series, source.beside)))


def _others(located: Located, name: str, holder: Located) -> Iterator[str]:
    """Further names for a source whose name another has."""
    source, folder = located.source, Path(os.path.abspath(located.source.path)).parent
    if located.label is None:
        if folder == Path(os.path.abspath(holder.source.path)).parent and source.suffix != holder.source.suffix:
            yield bounded_name(f"{name}{_suffix_in_name(source)}")
        above = folder.parts[1 : len(folder.parts) - len(located.folders)]
        held = Path(os.path.abspath(holder.source.path)).parent.parts
        for depth in range(1, len(above) + 1):
            if folder.parts[-depth - len(located.folders) :] != held[-depth - len(holder.folders) :]:
                yield bounded_name(f"{name_of(above[-depth:])}_{name}")
    yield from (f"{name}-{digits_of(_whole(source), digits)}" for digits in SUFFIXES)
    yield from (f"{name}-{number}" for number in count(2))  # the same source twice
