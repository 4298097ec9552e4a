"""Choice of the cases whose pictures are on the page: outliers first, up to a limit on the size of the page."""

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

LARGEST_WEIGHT = 20_000_000  # characters of all pictures and cards on a page
WORDS_WEIGHT = 5_000  # characters of the texts of one case, roughly
BATCH = 16  # cases drawn at a time; those beyond the limit are discarded
WORKERS = 4  # threads: Pillow encodes without the GIL


@dataclass(frozen=True)
class CasePictures:
    """By name of the case. grids: pictures on the page; left_out: beyond the limit on size; unreadable: the reason."""

    grids: Mapping[str, PictureGrid] = field(default_factory=dict)
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
