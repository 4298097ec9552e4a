"""The page of a folder of results, whichever pipeline made them: `monai-ifim`, the handler, the transforms or `SaveIFIM`."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from monai_ifim.report.cohort.page import write_cohort
from monai_ifim.run.folder_tables import refresh_tables

__all__ = ["write_page"]


def write_page(output: str | PathLike[str]) -> Path:
    """Write OUT/index.html of all cases that lie in OUT, from their sidecars, and the tables too where these are not up to date.

    output: the folder OUT, or that of an epoch. Returns the path of the page. Raises InputError for a folder without a case, and
    where a record cannot be read; OSError.
    """
    folder = Path(output)
    refresh_tables(folder)
    return write_cohort(folder)
