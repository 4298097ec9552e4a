"""Choice of the cases whose pictures are on the page: outliers first, up to a limit on its size; others get their own pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from monai_ifim.io import InputError
from monai_ifim.io.planes import read_planes
from monai_ifim.report.cohort.planes import PictureGrid, draw_picture_grid
from monai_ifim.report.cohort.records import Cohort

__all__ = ["LARGEST_WEIGHT", "CasePictures", "choose_pictures", "draw_beside", "planes_path"]

LARGEST_WEIGHT = 20_000_000  # characters of all pictures and cards on a page
LARGEST_CASE = 4_000_000  # characters of the pictures of a case on a page of its own
MOST_BESIDE = 2_000  # cases with a page of their own
WORDS_WEIGHT = 5_000  # characters of the texts of one case, roughly
BATCH = 16  # cases drawn at a time; those beyond the limit are discarded
WORKERS = 4  # threads: Pillow and zlib work without the GIL


@dataclass(frozen=True)
class CasePictures:
    """By name of the case. grids: pictures on the page; beside: cases beyond the limit on its size, which get their own pages;
    left_out: those for which even these would be too many; unreadable: the reason."""

    grids: Mapping[str, PictureGrid] = field(default_factory=dict)
    beside: tuple[str, ...] = ()
    left_out: frozenset[str] = frozenset()
    unreadable: Mapping[str, str] = field(default_factory=dict)


def planes_path(output: Path, case: str) -> Path:
    """Path of the file of planes of a case; it need not exist."""
    return output / case / f"{case}_planes.npz"


def choose_pictures(output: Path, cohort: Cohort, largest: int = LARGEST_WEIGHT) -> CasePictures:
    """Draw the pictures of the cases in a folder, in the best quality at which all cases fit.

    largest: characters of all pictures and texts. If not all cases fit: outliers first, then the least confident, then in the
    order of the run.
    """
    names = [name for name in _preference(cohort) if planes_path(output, name).is_file()]
    grids: dict[str, PictureGrid] = {}
    unreadable: dict[str, str] = {}
    left, share = largest, largest / max(len(names), 1) - WORDS_WEIGHT
    for name, drawn in _drawn(output, names, share):
        if isinstance(drawn, str):
            unreadable[name] = drawn
            continue
        left -= drawn.weight + WORDS_WEIGHT
        if left < 0:
            break
        grids[name] = drawn
    rest = [name for name in names if name not in grids and name not in unreadable]
    return CasePictures(grids, tuple(rest[:MOST_BESIDE]), frozenset(rest[MOST_BESIDE:]), unreadable)


def draw_beside(output: Path, names: Sequence[str]) -> Iterator[tuple[str, PictureGrid | str]]:
    """The pictures of cases with their own pages, or the reason why they cannot be read, a few at a time."""
    yield from _drawn(output, names, LARGEST_CASE)


def _drawn(output: Path, names: Sequence[str], share: float) -> Iterator[tuple[str, PictureGrid | str]]:
    with ThreadPoolExecutor(WORKERS) as pool:
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            yield from zip(batch, pool.map(lambda name: _draw(output, name, share), batch), strict=True)


def _draw(output: Path, name: str, share: float) -> PictureGrid | str:
    """The pictures of a case, or the reason why they cannot be read: one damaged file must not prevent the page."""
    try:
        planes = read_planes(planes_path(output, name))
    except InputError as error:
        return str(error)
    return draw_picture_grid(planes, share)


def _preference(cohort: Cohort) -> list[str]:
    """Names of all cases with a result: outliers, the least confident, the others."""
    order: Sequence[str] = [*cohort.outliers["case"], *cohort.least_confident["case"], *cohort.made["case"]]
    return list(dict.fromkeys(order))
