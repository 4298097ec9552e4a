"""`monai-ifim demo`: a real CT slice and a generated volume, with the two bundles that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monai_ifim.cli.options import OUTPUT
from monai_ifim.cli.summary import quiet_libraries


def demo(
    output: Annotated[Path, OUTPUT] = Path("ifim_demo"),
) -> None:
    """Decompose a real CT slice (2D) and a generated volume (3D); needs no network connection and no argument."""
    quiet_libraries()
    console = Console()
    with console.status("loading MONAI"):
        from monai_ifim.adapt.bundle import load_bundle
        from monai_ifim.adapt.settings import CaseSettings
        from monai_ifim.cli.summary import case_progress, show_rows
        from monai_ifim.evaluation.demonstration import demo_slice, demo_volume
        from monai_ifim.io.containment import check_real
        from monai_ifim.io.installation import resolve_bundle
        from monai_ifim.report.cohort.page import write_cohort
        from monai_ifim.run.cases import find_cases
        from monai_ifim.run.local import run_cases
        from monai_ifim.run.output_folder import prepared_folder
        from monai_ifim.run.settings import RunSettings

        jobs = {
            "mednist_classification": ("a CT slice from pydicom's test files", demo_slice()),
            "lumpy_lesion_detection_3d": (
                "a generated volume with a lesion",
                demo_volume(prepared_folder(output) / "input", output),
            ),
        }
    for name, (what, image) in jobs.items():
        console.print(f"\n[bold]{name}[/bold]: {what}")
        settings = RunSettings(output / name, CaseSettings("categorical", locality=True), overwrite=True)
        check_real(settings.output, output)
        with case_progress(console, 1) as report:
            rows = run_cases(load_bundle(resolve_bundle(name)), find_cases([image]), settings, report)
        write_cohort(settings.output)
        show_rows(console, rows, settings.output)
        if rows[0].status == "failed":
            raise typer.Exit(3)
    console.print(
        "\nOpen index.html of either folder in a browser, or the .mrml of a case in 3D Slicer: bright spots are where small "
        "changes of this very image move the answer most. _high is the image's part in the sensitive directions, _low the rest; "
        "the .json says how all was made."
    )
