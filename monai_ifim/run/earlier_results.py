"""Inputs that hold results of earlier runs: OUT inside of the input, or the input itself. They are left out, with a word."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from monai_ifim.io.case_files import results_in

MARKS = ("_ifim_", "_planes.npz")  # in the names of all results that are images


def named_results(files: Iterable[Path]) -> list[Path]:
    """Those of the files that are results of earlier runs; each folder is listed once."""
    alike = [file for file in files if any(mark in file.name for mark in MARKS)]
    found = {folder: results_in(folder, os.listdir(folder)) for folder in {file.parent for file in alike} if folder.is_dir()}
    return [file for file in alike if file.name in found.get(file.parent, ())]


def tell(left_out: int, named: Sequence[Path]) -> None:
    """Log in a line each how many results were left out of folders, and that others are decomposed because they were named."""
    if os.environ.get("RANK", "0") != "0":  # of many processes one speaks
        return
    log = logging.getLogger("monai_ifim")
    if left_out:
        log.warning("%s of earlier runs, known by the sidecars beside them: left out of the input.", _several(left_out))
    if named:
        log.warning("%s of earlier runs: decomposed, because named as input.", _several(len(named)))


def _several(number: int) -> str:
    return "1 file is a result" if number == 1 else f"{number} files are results"
