"""Inputs that hold results of earlier runs: OUT inside of the input, or the input itself. They are left out, with a word."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from monai_ifim.io.case_files import results_in

MARKS = ("_ifim_", "_planes.npz")  # in the names of all results that are images


def named_results(files: Iterable[Path]) -> list[Path]:
    """Those of the files that are results of earlier runs; each folder is listed once."""
    alike = [file for file in files if any(mark in file.name for mark in MARKS)]
    found = {folder: results_in(folder, os.listdir(folder)) for folder in {file.parent for file in alike} if folder.is_dir()}
    return [file for file in alike if file.name in found.get(file.parent, ())]


def tell(left_out: Collection[str], named: Sequence[Path]) -> None:
    """Log in a line each how many results were left out of folders, and that others are decomposed because they were named.

    left_out: of each result the SOP class, or nothing, by which it was known.
    """
    maps = sum(map(bool, left_out))
    if others := len(left_out) - maps:
        say(f"{_several(others)} of earlier runs, known by the sidecars beside them: left out of the input.")
    if maps:
        say(f"{_several(maps)} of earlier runs, DICOM Parametric Maps known by their headers: left out of the input.")
    if named:
        say(f"{_several(len(named))} of earlier runs: decomposed, because named as input.")


def say(line: str) -> None:
    """Log a line about the inputs as a warning; of many processes one speaks."""
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("monai_ifim").warning("%s", line)


def _several(number: int) -> str:
    return "1 file is a result" if number == 1 else f"{number} files are results"
