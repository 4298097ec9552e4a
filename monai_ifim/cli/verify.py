"""`monai-ifim verify`: are the results still what the run wrote?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from monai_ifim.cli.options import BUNDLE
from monai_ifim.cli.summary import quiet_libraries
from monai_ifim.display import numbers

if TYPE_CHECKING:
    from monai_ifim.run.verification.findings import Verification

DIFFERS, NO_RESULTS = 1, 2


def verify(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of results, as given to decompose --output.")],
    bundle: Annotated[str | None, BUNDLE] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", help="Inputs of the run, or folders that hold them; by default looked for near OUT."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")] = False,
) -> None:
    """Compare all files of a run with the hashes that were taken when they were written, and the tables with the sidecars.

    Nothing is made, changed or removed, and no code of the bundle runs.
    Exit status: 0 nothing differs, 1 something does, 2 wrong use, or no results to verify.
    """
    quiet_libraries()
    console = Console(stderr=True, soft_wrap=True)
    with console.status("reading"):
        from monai_ifim.io import InputError
        from monai_ifim.io.errors import explained
        from monai_ifim.io.installation import resolve_bundle
        from monai_ifim.run.verification.results import verify_results
    try:
        root = None if bundle is None else resolve_bundle(bundle)
        with _progress(console) as report:
            found = verify_results(output, root, inputs, report)
    except (InputError, OSError) as error:
        console.print(f"error: {explained(error)}", style="bold red", markup=False, highlight=False)
        raise typer.Exit(NO_RESULTS) from error
    if as_json:
        typer.echo(json.dumps(found.described(), indent=2))
    else:
        _show(found)
    if not found.clean:
        raise typer.Exit(DIFFERS)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("cases"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("cases", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _show(found: Verification) -> None:
    """One line a finding, then the notes, then how much was checked."""
    for finding in found.findings:
        typer.echo(f"DIFFERS {finding.line}")
    for note in found.notes:
        typer.echo(f"note    {note.line}")
    checked = f"{numbers.counted(found.cases, 'case')} with {numbers.counted(found.files, 'file')}"
    besides = f"{numbers.counted(found.inputs, 'input')}{', the bundle' if found.bundle else ''}"
    verdict = "nothing differs" if found.clean else f"{numbers.counted(len(found.findings), 'difference')}"
    typer.echo(f"{verdict}; checked: {checked}, {besides}")
