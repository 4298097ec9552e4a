"""The folder for results while a run writes into it: made, swept, closed to others if wanted, and locked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from monai_ifim.io import InputError, OutputError, atomic
from monai_ifim.io.case_files import is_file_of
from monai_ifim.io.output_lock import locked_output
from monai_ifim.io.private_folder import make_private
from monai_ifim.run.cases import Case


def prepared_folder(output: Path, private: bool = False) -> Path:
    """Make the folder for results if it is missing, and remove the partial files of killed runs from it.

    Files that other processes are writing now are kept. private: close it to everybody but its owner (`make_private`). Raises
    OutputError if it cannot be made, closed or written.
    """
    doing = "made"
    try:
        make_private(output) if private else output.mkdir(parents=True, exist_ok=True)
        doing = "written"
        atomic.remove_partial_below(output)
        atomic.check_folder(output, root=output)
    except OSError as error:
        raise OutputError(f"{output}: cannot be {doing} ({error.strerror}): choose another --output.") from error
    return output


@contextmanager
def held_output(output: Path, private: bool = False) -> Iterator[None]:
    """`prepared_folder`, locked until the end of the block; raises OutputError if another run is writing into it."""
    if output.is_dir():  # before anything of that run is closed or swept
        with locked_output(output):
            prepared_folder(output, private)
            yield
        return
    prepared_folder(output, private)
    with locked_output(output):
        yield


def refuse_replaced_inputs(cases: Iterable[Case], output: Path) -> None:
    """Raise InputError if an input lies where the results of a case will be written, under a name that they will have."""
    listed = list(cases)
    names = {case.name for case in listed}
    root = os.path.realpath(output)
    for path in (case.source.path for case in listed):
        folder = Path(os.path.realpath(path.parent))
        if os.path.dirname(folder) == root and folder.name in names and is_file_of(folder.name, path.name):
            raise InputError(
                f"{path}: is an input, and the results of the case {folder.name} would replace it: choose another --output."
            )
