"""The folder for results while a run writes into it: made, swept, closed to others if wanted, and locked."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from monai_ifim.io import InputError, OutputError, atomic
from monai_ifim.io.case_files import is_file_of, needless_marks
from monai_ifim.io.case_names import DIGITS
from monai_ifim.io.output_lock import locked_output
from monai_ifim.io.private_folder import make_private
from monai_ifim.run.cases import Case
from monai_ifim.run.settings import RunSettings


def prepared_folder(output: Path, private: bool = False) -> Path:
    """Make the folder for results if it is missing, and remove the partial files of killed runs from it.

    Files that other processes are writing now are kept. private: close it to everybody but its owner (`make_private`). Raises
    OutputError if it cannot be made, closed or written.
    """
    doing = "made"
    try:
        make_private(output) if private else output.mkdir(parents=True, exist_ok=True)
        doing = "written"
        atomic.remove_partial_below(output, needless_marks)
        atomic.check_folder(output, root=output)
    except OSError as error:
        raise _unusable(output, doing, error) from error
    return output


@contextmanager
def held_output(output: Path, private: bool = False) -> Iterator[None]:
    """`prepared_folder`, locked until the end of the block; raises OutputError if another run is writing into it."""
    with ExitStack() as held:
        doing = "made"
        try:
            there = output.is_dir()
            if not there:
                prepared_folder(output, private)
            doing = "written"
            held.enter_context(locked_output(output))
            if there:  # nothing of a run that writes there is closed or swept
                prepared_folder(output, private)
        except OSError as error:
            raise _unusable(output, doing, error) from error
        yield


def _unusable(output: Path, doing: str, error: OSError) -> OutputError:
    return OutputError(f"{output}: cannot be {doing} ({error.strerror}): choose another --output.")


@contextmanager
def output_of_run(settings: RunSettings, cases: Sequence[Case]) -> Iterator[None]:
    """`held_output` for a run of these cases; raises InputError before if their results would replace one of their inputs."""
    if settings.case.case_names != "hash":  # no input is called like a pseudonym
        refuse_replaced_inputs(cases, settings.output)
    with held_output(settings.output, settings.private):
        yield


def refuse_replaced_inputs(cases: Sequence[Case], output: Path) -> None:
    """Raise InputError if an input lies where the results of a case will be written, under a name that they will have."""
    names = {case.name for case in cases}
    root = os.path.realpath(output)
    resolved = {parent: Path(os.path.realpath(parent)) for parent in {case.source.path.parent for case in cases}}
    for path in (case.source.path for case in cases):
        folder = resolved[path.parent]
        filed = folder.name in names or DIGITS.sub("", folder.name) in names
        if filed and str(folder.parent) == root and is_file_of(folder.name, path.name):
            raise InputError(
                f"{path}: is an input, and the results of the case {folder.name} would replace it: choose another --output."
            )
