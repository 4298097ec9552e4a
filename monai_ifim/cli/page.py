"""`monai-ifim page`: the page of results that a pipeline of one's own has written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monai_ifim.cli.summary import quiet_libraries


def page(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of results: output_dir of the handler or of SaveIFIM.")],
) -> None:
    """Write cases.csv, cases.parquet and index.html of all cases in a folder, from their sidecars.

    `decompose` does so itself. This is for results of a Python loop, a handler or transforms, and after cases were moved away.
    Exit status: 0 written, 1 no case there, or one that cannot be read.
    """
    quiet_libraries()
    console = Console(soft_wrap=True)
    with console.status("reading the cases"):
        from monai_ifim.io.output_lock import locked_output
        from monai_ifim.report.cohort.results_page import write_page
        from monai_ifim.run.folder_tables import check_folder

        check_folder(output)  # before the lock is put there
        with locked_output(output):
            written = write_page(output)
    console.print(f"To look at: {written}", markup=False, highlight=False)
