"""Which cases of a run have their pictures on the page: those that stand out first, as many as its weight allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from monai_ifim.io import InputError
from monai_ifim.io.planes import read_planes
from monai_ifim.report.cohort.planes import PictureGrid, draw_picture_grid
from monai_ifim.report.cohort.records import Cohort

__all__ = ["LARGEST_WEIGHT", "CasePictures", "choose_pictures", "planes_path"]

LARGEST_WEIGHT = 20_000_000  # characters of all pictures on a page, and of the words beside them
WORDS_WEIGHT = 5_000  # about, of one case
BATCH = 16  # cases that are drawn at a time: what is drawn beyond the weight is thrown away
WORKERS = 4  # Pillow encodes outside Python's lock


@dataclass(frozen=True)
class CasePictures:
    """By name of the case. grids: on the page; left_out: there, but too much for one page; unreadable: why."""

    grids: Mapping[str, PictureGrid] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()
    unreadable: Mapping[str, str] = field(default_factory=dict)


def planes_path(output: Path, case: str) -> Path:
    """Where the planes of a case are, if it has any."""
    return output / case / f"{case}_planes.npz"


def choose_pictures(output: Path, cohort: Cohort, largest: int = LARGEST_WEIGHT) -> CasePictures:
    """Draw the pictures of the cases of a folder, in as good a quality as lets every case have some.

    largest: characters of all of it, words included. Order of preference: outliers, the least confident, then that of the run.
    """
    names = [name for name in _preference(cohort) if planes_path(output, name).is_file()]
    grids: dict[str, PictureGrid] = {}
    unreadable: dict[str, str] = {}
    left, share = largest, largest / max(len(names), 1) - WORDS_WEIGHT
    with ThreadPoolExecutor(WORKERS) as pool:
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            for name, drawn in zip(batch, pool.map(lambda name: _draw(output, name, share), batch), strict=True):
                if isinstance(drawn, str):
                    unreadable[name] = drawn
                    continue
                left -= drawn.weight + WORDS_WEIGHT
                if left < 0:
                    return CasePictures(grids, frozenset(names) - set(grids) - set(unreadable), unreadable)
                grids[name] = drawn
    return CasePictures(grids, frozenset(), unreadable)


def _draw(output: Path, name: str, share: float) -> PictureGrid | str:
    """The pictures of a case, or why there are none: one damaged file must not cost the page of a whole run."""
    try:
        planes = read_planes(planes_path(output, name))
    except InputError as error:
        return str(error)
    return draw_picture_grid(planes, share)


def _preference(cohort: Cohort) -> list[str]:
    """Names of all cases that have a result, those first whose pictures matter most."""
    order: Sequence[str] = [*cohort.outliers["case"], *cohort.least_confident["case"], *cohort.made["case"]]
    return list(dict.fromkeys(order))
