"""`monai-ifim decompose`: images in, iFIM components out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monai_ifim.cli.engines import Engine
from monai_ifim.cli.repetition import needed, repeat_from
from monai_ifim.cli.summary import quiet_libraries

HEADS = "auto, categorical, bernoulli, gaussian, probabilities, voxelwise or voxelwise_bernoulli"
SAVE_DEFAULT = "high,low,sensitivity,eigenvectors"


def decompose(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders, DICOM series folders, or MONAI datalists (.json)."),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="MONAI bundle: its folder, or the name of one that comes with the package.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the results.")] = None,
    energy: Annotated[float, typer.Option(help="Keep the leading components that hold this share of the trace.")] = 0.99,
    rank_kept: Annotated[int | None, typer.Option("--rank", help="Keep this many components instead of a share.")] = None,
    method: Annotated[str, typer.Option(help="exact, adaptive, matrix_free, or auto.")] = "auto",
    tolerance: Annotated[float, typer.Option(help="adaptive, matrix_free: relative error of the kept eigenvalues.")] = 1e-4,
    head: Annotated[str, typer.Option(help=f"{HEADS}.")] = "auto",
    space: Annotated[
        str, typer.Option(help="native: what the network saw, on the input's grid; network; or scanner: the scan itself.")
    ] = "native",
    statistics: Annotated[
        str | None,
        typer.Option(help="With --space scanner: differentiate or freeze percentiles and the like (differentiate)."),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(help="With --space scanner: coarseness of changes in mm, 0 for none; by default the network's voxels."),
    ] = None,
    save: Annotated[str, typer.Option(help="Which components to write, separated by commas.")] = SAVE_DEFAULT,
    frame: Annotated[int | None, typer.Option(min=0, help="Which volume of 4D files, counted from 0.")] = None,
    series: Annotated[
        str | None, typer.Option(help="Of DICOM folders the volume of this series UID; all: each volume as a case.")
    ] = None,
    fix_geometry: Annotated[
        bool, typer.Option("--fix-geometry", help="Resample DICOM volumes with a tilted gantry or uneven gaps onto an even grid.")
    ] = False,
    dicom_pm: Annotated[
        bool, typer.Option("--dicom-pm", help="Write the components as DICOM Parametric Maps too (DICOM inputs alone).")
    ] = False,
    mrb: Annotated[bool, typer.Option("--mrb", help="Write each 3D Slicer scene as one .mrb file too, to hand on.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default CUDA where there is one.")] = None,
    memory_budget: Annotated[
        str | None, typer.Option(help="Bound on rows and saved activations, such as 2GiB; what does not fit is moved or redone.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the passes: float32, float64, bfloat16 or float16; by default the network's.")
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="Noise level of the image, a number or a NIfTI map: eigenvalues per standard deviation of it."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random vectors of adaptive and matrix_free.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images of one shape that share backward passes.")] = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make cases again that are whole already.")] = False,
    engine: Annotated[Engine, typer.Option(help="local: this process; ray: workers of a Ray cluster or of this machine.")] = (
        Engine.LOCAL
    ),
    workers: Annotated[int | None, typer.Option(min=1, help="With --engine ray: worker processes; by default all fit.")] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Only operations that repeat to the last bit, on accelerators too.")
    ] = False,
    repeat: Annotated[
        Path | None,
        typer.Option("--from", metavar="CASE_ifim.json", help="Instead of all this: make this case again and compare."),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="With --from: the case's image, where it is not near its files.")] = None,
) -> None:
    """Decompose images by the Fisher information of a bundle's classifier.

    Cases that are whole from an earlier run of the same input, model and settings are kept: run the same command again after
    an interruption. Ctrl-C stops once the cases in hand are done, a second one at once. Started by torchrun, each process
    takes its share.
    Exit status: 0 all cases done, 1 wrong use or no way to go on, 3 some cases failed (see cases.csv), 130 and 143 stopped by
    Ctrl-C and by the system. Of --from: 0 the case agrees, 1 it does not, 4 there is nothing to compare.
    """
    quiet_libraries()
    if repeat is not None:
        repeat_from(context, repeat, image, bundle, output, device, noise)
        return
    inputs, bundle, output = needed(context, inputs, bundle, output, image)
    console = Console(quiet=int(os.environ.get("RANK", 0)) != 0)  # of many processes one speaks
    with console.status("loading MONAI and the bundle"):
        from monai_ifim.adapt.options import DecomposeOptions
        from monai_ifim.adapt.scanner.noise import read_noise
        from monai_ifim.cli.engines import chosen_engine
        from monai_ifim.cli.interruption import end_if_stopped, stopping, with_hint
        from monai_ifim.cli.origin import name_origin
        from monai_ifim.cli.scanner import scanner_settings
        from monai_ifim.cli.summary import case_progress, show_rows
        from monai_ifim.core.determinism import tell_cublas
        from monai_ifim.io.installation import resolve_bundle
        from monai_ifim.report.cohort.page import write_cohort
        from monai_ifim.run.cases import find_cases
        from monai_ifim.run.ranks import rank_of_process
        from monai_ifim.run.settings import RunSettings
        from monai_ifim.run.stop_request import StopRequest

        tell_cublas(deterministic)
        rank = rank_of_process()
        chosen = rank.device if device in (None, "cuda") else device
        options = DecomposeOptions(
            head,
            energy,
            rank_kept,
            method,  # type: ignore[arg-type]
            locality=True,
            tolerance=tolerance,
            memory_budget=memory_budget,
            metric=read_noise(noise),
            precision=precision,  # type: ignore[arg-type]
            seed=seed,
        )
        contents = tuple(name.strip() for name in save.split(",") if name.strip())
        settings = RunSettings(
            output,
            options,
            space,  # type: ignore[arg-type]
            contents,
            batch_size,
            chosen,
            overwrite,
            dicom_pm,
            mrb,
            deterministic=deterministic,
            **scanner_settings(space, statistics, resolution, noise),
        )
        cases = find_cases(inputs, frame, series, fix_geometry)
        root = resolve_bundle(bundle)
        name_origin(console, root)
        run = chosen_engine(engine, workers, rank, root, settings)
    stop_request = StopRequest()
    with with_hint(), stopping(stop_request, rank.size), case_progress(console, rank.share(len(cases))) as report:
        rows = run(cases, report, stop_request)
    if rank.number == 0 and not stop_request.due:
        write_cohort(output)
    show_rows(console, rows, output)
    end_if_stopped(console, stop_request, rows, len(cases))
    if any(row.status == "failed" for row in rows):
        raise typer.Exit(3)
