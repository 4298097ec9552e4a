"""`monai-ifim demo`: a real CT slice and two generated volumes, with the bundles that come with the package."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from monai_ifim.cli.options import JSON, OUTPUT, QUIET
from monai_ifim.cli.summary import quiet_libraries
from monai_ifim.cli.voice import Document, Voice
from monai_ifim.viewer.browser import has_screen

if TYPE_CHECKING:
    from monai_ifim.evaluation.demo_cases import DemoCase

OPEN = typer.Option("--open/--no-open", help="Show the page of the CT slice in the browser, where there is a screen.")


def demo(
    output: Annotated[Path, OUTPUT] = Path("ifim_demo"),
    show: Annotated[bool, OPEN] = True,
    quiet: Annotated[bool, QUIET] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Decompose a real CT slice (2D) and two generated volumes (3D), one of them segmented; needs no network and no argument.

    With --quiet or --json no browser is opened.
    """
    quiet_libraries()
    voice = Voice.of(quiet, as_json)
    with voice.document("demo") as told:
        console, told.output = voice.console, output
        with console.status("loading MONAI"):
            from monai_ifim.evaluation.demo_cases import demo_cases
            from monai_ifim.run.output_folder import prepared_folder

            cases = demo_cases(prepared_folder(output) / "input", output)
        pages: list[Path] = []
        told.further = {"pages": [], "findings": []}
        for case in cases:
            pages.append(_decomposed(case, output, console, told))
            told.page = pages[0]
        console.print(
            "\nBright spots on the pages are where small changes of this very image move the answer most. Pages for the browser "
            f"(the .mrml beside them opens in 3D Slicer):\n{chr(10).join(map(str, pages))}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if show and has_screen() and not quiet and not as_json:
        webbrowser.open(pages[0].resolve().as_uri())


def _decomposed(case: DemoCase, output: Path, console: Console, told: Document) -> Path:
    """Decompose a case, tell what is found, and return its page; ends the program with status 3 where the case fails."""
    from monai_ifim.adapt.bundle import load_bundle
    from monai_ifim.adapt.settings import CaseSettings
    from monai_ifim.cli.progress import case_progress
    from monai_ifim.cli.summary import show_rows
    from monai_ifim.evaluation.demo_cases import find
    from monai_ifim.io.containment import check_real
    from monai_ifim.io.installation import resolve_bundle
    from monai_ifim.report.cohort.page import write_cohort
    from monai_ifim.run.cases import find_cases
    from monai_ifim.run.local import run_cases
    from monai_ifim.run.settings import RunSettings

    console.print(f"\n[bold]{case.bundle}[/bold]")
    settings = RunSettings(output / case.bundle, CaseSettings(case.head, locality=True), overwrite=True)
    check_real(settings.output, output)
    with case_progress(console, 1) as report:
        bundle = load_bundle(resolve_bundle(case.bundle))
        (row,) = run_cases(bundle, find_cases([case.image]), settings, report, activity=report.activity)
    page = write_cohort(settings.output)
    told.rows = [*told.rows, row]
    told.further["pages"].append(str(page))
    show_rows(console, [row], settings.output)
    if row.status == "failed":
        raise typer.Exit(3)
    sentence = find(case, settings.output / row.case).sentence
    told.further["findings"].append(sentence)
    console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    return page
