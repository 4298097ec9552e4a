"""Which images in a folder are results of an evaluation: figures that its report names, and planes of examples."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from monai_ifim.core import IFIMError
from monai_ifim.io.written_files import read_regular

FIGURES, REPORT, RECORD = "figures", "report.md", "results.json"
IMAGES, IDENTITY = "images", "identity.json"  # in the folder of a cell, cells/TASK/ARCHITECTURE
LARGEST_REPORT = 2**26  # bytes
_NAMED = re.compile(rb"\(figures/([^()/\s]+)\)")  # a picture in Markdown


def results_of_experiment(folder: Path, names: Collection[str]) -> frozenset[str]:
    """Which of the names of files in a folder are pictures of an experiment: the report above names them, or they lie beside the
    measurements of their image, in the folder of a cell."""
    if folder.name == FIGURES and (folder.parent / RECORD).is_file():
        try:
            report = read_regular(folder.parent / REPORT, folder.parent, LARGEST_REPORT)
        except (OSError, IFIMError):
            return frozenset()
        return frozenset(name.decode("utf-8", "surrogateescape") for name in _NAMED.findall(report)) & frozenset(names)
    if folder.name == IMAGES and (folder.parent / IDENTITY).is_file():
        return frozenset(name for name in names if name.endswith(".npz") and f"{name.removesuffix('.npz')}.parquet" in names)
    return frozenset()
