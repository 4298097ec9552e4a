"""Fuzz targets, and the accepted results for a damaged or forged input."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fuzz.mutations import mutate_bytes
from monai_ifim.core import IFIMError
from monai_ifim.io.errors import explained
from monai_ifim.viewer.cases import ViewerError

ANSWERS: tuple[type[Exception], ...] = (IFIMError, ViewerError)
LONGEST = 2000  # characters of a message
NO_NAME = frozenset('/\\\0<>:"|?*\n')  # of a file, on one system or another


@dataclass(frozen=True)
class Target:
    """run: reads `content` by way of files in an empty folder; seeds: inputs that the fuzzer begins with, the first is sound;
    mutate: how they are changed; inputs: how many changed ones the tests try."""

    name: str
    run: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes
    inputs: int = 150


@contextmanager
def refusing() -> Iterator[None]:
    """Accepts errors of the package whose message is one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ANSWERS as error:
        said = explained(error) if isinstance(error, IFIMError) else str(error)
        if not said.strip() or "\n" in said or len(said) > LONGEST:
            raise AssertionError(f"an error that is not one line which says something: {said!r}") from error


def check_names(names: Iterable[str]) -> None:
    """Each is the name of one folder on any file system, and no two are the same where letter case does not count."""
    listed = list(names)
    assert len({name.lower() for name in listed}) == len(listed), listed
    assert not [name for name in listed if name in ("", ".", "..") or set(name) & NO_NAME or len(name.encode()) > 255], listed
