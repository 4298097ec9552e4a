"""`monai-ifim decompose`: images in, iFIM components out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monai_ifim.cli.summary import quiet_libraries

SAVE_DEFAULT = "high,low,sensitivity,eigenvectors"


def decompose(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="Files, folders, DICOM series folders, or MONAI datalists (.json)."),
    ],
    bundle: Annotated[str, typer.Option(help="MONAI bundle: its folder, or the name of one that comes with the package.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    energy: Annotated[float, typer.Option(help="Keep the leading components that hold this share of the trace.")] = 0.99,
    rank: Annotated[int | None, typer.Option(help="Keep this many components instead of a share.")] = None,
    method: Annotated[str, typer.Option(help="exact, or auto.")] = "auto",
    head: Annotated[str, typer.Option(help="auto, categorical, bernoulli, gaussian or probabilities.")] = "auto",
    space: Annotated[str, typer.Option(help="Grid of the files: native (the input's own) or network.")] = "native",
    save: Annotated[str, typer.Option(help="Which components to write, separated by commas.")] = SAVE_DEFAULT,
    frame: Annotated[int | None, typer.Option(min=0, help="Which volume of 4D files, counted from 0.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default CUDA where there is one.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images of one shape that share backward passes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make cases again that are whole already.")] = False,
) -> None:
    """Decompose images by the Fisher information of a bundle's classifier.

    Exit status: 0 all cases done, 1 wrong use, 3 some cases failed (see cases.csv).
    """
    quiet_libraries()
    console = Console()
    with console.status("loading MONAI and the bundle"):
        import torch

        from monai_ifim.adapt.bundle import load_bundle
        from monai_ifim.adapt.options import DecomposeOptions
        from monai_ifim.cli.summary import case_progress, show_rows
        from monai_ifim.io.installation import resolve_bundle
        from monai_ifim.run.cases import find_cases
        from monai_ifim.run.local import RunSettings, run_cases

        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        options = DecomposeOptions(head, energy, rank, method, locality=True)  # type: ignore[arg-type]
        contents = tuple(name.strip() for name in save.split(",") if name.strip())
        settings = RunSettings(output, options, space, contents, batch_size, chosen, overwrite)  # type: ignore[arg-type]
        cases = find_cases(inputs, frame)
        loaded = load_bundle(resolve_bundle(bundle), chosen)
    with case_progress(console, len(cases)) as report:
        rows = run_cases(loaded, cases, settings, report)
    show_rows(console, rows, output)
    if any(row.status == "failed" for row in rows):
        raise typer.Exit(3)
