"""The verdicts on a folder, as a table: python -m benchmarks.geometry FOLDER [--json FILE].

Reads every volume below FOLDER with monai_ifim (as `decompose --series all`), with dcm2niix (DICOM) or nibabel or ITK (other
formats), and prints a table: sizes, largest distance between the corners in mm, largest difference of the values relative to
their range, verdict and reason. Ends with status 1 where a volume differs or is passed over without a known reason, or an
exception arose that is no refusal.
No text of a header is printed; names of files and folders are.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import shutil
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

from benchmarks.geometry.dcm2niix import PROGRAM, program_version
from benchmarks.geometry.table import as_json, as_table
from benchmarks.geometry.verdicts import judge
from benchmarks.stamp import Stamp, command_line, commit, environment_line


def main() -> None:
    """Judge the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows and reasons to a file")
    arguments = parser.parse_args()
    if not arguments.folder.is_dir():
        parser.error(f"{arguments.folder.name}: no such folder.")
    if shutil.which(PROGRAM) is None:
        parser.error(f"{PROGRAM} is not installed: install it (Debian package dcm2niix).")
    warnings.simplefilter("ignore")  # of libraries, which quote headers
    logging.disable()
    rows = judge(arguments.folder)
    print(as_table(rows))
    stamp = _stamp()
    print(stamp.line)
    if arguments.json is not None:
        arguments.json.write_text(as_json(rows, stamp), encoding="utf-8")
    if any(row.is_finding for row in rows):
        sys.exit(1)


def _stamp() -> Stamp:
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    readers = [program_version(), *(f"{name} {version(name)}" for name in ("nibabel", "itk", "pydicom"))]
    return Stamp(date, ", ".join([environment_line(), *readers]), commit(), command_line())


if __name__ == "__main__":
    main()
