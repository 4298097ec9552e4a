"""`monai-ifim demo`: a real CT slice and two generated volumes, with the bundles that come with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer
from rich.console import Console

from monai_ifim.cli.options import OUTPUT
from monai_ifim.cli.summary import quiet_libraries
from monai_ifim.display import numbers

if TYPE_CHECKING:
    from monai_ifim.evaluation.demonstration import PlantedLesion
    from monai_ifim.run.table import CaseRow


class _Job(NamedTuple):
    """A bundle of the package, what it is shown, and what its network's output is."""

    bundle: str
    what: str
    image: Path
    head: str


def demo(
    output: Annotated[Path, OUTPUT] = Path("ifim_demo"),
) -> None:
    """Decompose a real CT slice (2D) and two generated volumes (3D), one of them segmented; needs no network and no argument."""
    quiet_libraries()
    console = Console()
    with console.status("loading MONAI"):
        from monai_ifim.adapt.bundle import load_bundle
        from monai_ifim.adapt.settings import CaseSettings
        from monai_ifim.cli.progress import case_progress
        from monai_ifim.cli.summary import show_rows
        from monai_ifim.evaluation.demonstration import demo_slice, demo_volume, planted_lesion
        from monai_ifim.io.containment import check_real
        from monai_ifim.io.installation import resolve_bundle
        from monai_ifim.report.cohort.page import write_cohort
        from monai_ifim.run.cases import find_cases
        from monai_ifim.run.local import run_cases
        from monai_ifim.run.output_folder import prepared_folder
        from monai_ifim.run.settings import RunSettings

        drawn = prepared_folder(output) / "input"
        truth = planted_lesion(drawn, output)
        jobs = (
            _Job("mednist_classification", "a CT slice from pydicom's test files", demo_slice(), "categorical"),
            _Job("lumpy_lesion_detection_3d", "a generated volume with a lesion", demo_volume(drawn, output), "categorical"),
            _Job("lumpy_segmentation_3d", "a generated volume with a lesion to outline", truth.path, "volumes"),
        )
    for name, what, image, head in jobs:
        console.print(f"\n[bold]{name}[/bold]: {what}")
        settings = RunSettings(output / name, CaseSettings(head, locality=True), overwrite=True)
        check_real(settings.output, output)
        with case_progress(console, 1) as report:
            rows = run_cases(load_bundle(resolve_bundle(name)), find_cases([image]), settings, report, activity=report.activity)
        write_cohort(settings.output)
        show_rows(console, rows, settings.output)
        if rows[0].status == "failed":
            raise typer.Exit(3)
    console.print(_compared(truth, rows[0]))
    console.print(
        "\nOpen index.html of each folder in a browser, or the .mrml of a case in 3D Slicer: bright spots are where small "
        "changes of this very image move the answer most. _high is the image's part in the sensitive directions, _low the rest; "
        "the .json says how all was made."
    )


def _compared(truth: PlantedLesion, row: CaseRow) -> str:
    """The lesion that was planted beside the volume that the network expects, in ml."""
    volumes = dict(zip(row.class_names or (), row.means or (), strict=True))
    place = ", ".join(numbers.number(coordinate) for coordinate in truth.centre)
    return (
        f"The lesion was planted at ({place}) mm (right, anterior, superior) with "
        f"{numbers.number(truth.volume)} ml; the network expects {numbers.number(volumes['lesion'])} ml."
    )
