"""`monai-ifim view`: the slices of a run's cases, in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def view(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of results, as given to decompose --output.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of this machine; 0 takes any free one.")] = 0,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    case: Annotated[str | None, typer.Option(help="Name of the case to show first.")] = None,
) -> None:
    """Look at the cases of a run slice by slice, with the maps over the scan. Ends with Ctrl+C.

    Needs the package's extra `view`. Listens on this machine alone, and only to whoever has the address that is printed.
    """
    from monai_ifim.viewer.browser import opened_browser
    from monai_ifim.viewer.launch import ViewerError, serve_viewer

    with opened_browser(wanted=not no_browser) as open_browser:

        def announce(address: str, count: int) -> None:
            typer.echo(
                f"{count} case{'' if count == 1 else 's'} at\n\n    {address}\n\nfor this machine alone; Ctrl+C ends the viewer."
            )
            open_browser(address)

        try:
            serve_viewer(output, announce, port, case)
        except ViewerError as error:  # told here, not by main: the viewer needs no torch, which the package's own errors load
            Console(stderr=True, soft_wrap=True).print(f"error: {error}", style="bold red", markup=False, highlight=False)
            raise typer.Exit(1) from error
