"""`monai-ifim decompose`: images in, iFIM components out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from monai_ifim.cli.engines import Engine
from monai_ifim.cli.head import tell_head
from monai_ifim.cli.options import (
    BATCH_SIZE,
    BUNDLE,
    DEVICE,
    EXPECT_SHA256,
    FIX_GEOMETRY,
    JSON,
    MONOCHROME1,
    OUTPUT,
    OVERWRITE,
    PRIVATE,
    QUIET,
    VALUES,
    GivenSettings,
    takes_settings,
)
from monai_ifim.cli.repetition import needed, repeat_from
from monai_ifim.cli.summary import quiet_libraries
from monai_ifim.cli.voice import Voice
from monai_ifim.options import READING, Monochrome1, PixelValuesBy


@takes_settings()
def decompose(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT...", help="Files, folders, DICOM series folders, or MONAI datalists (.json)."),
    ] = None,
    bundle: Annotated[str | None, BUNDLE] = None,
    output: Annotated[Path | None, OUTPUT] = None,
    *,
    given: GivenSettings,
    expect_sha256: Annotated[str | None, EXPECT_SHA256] = None,
    frame: Annotated[int | None, typer.Option(min=0, help="Volume of 4D files and of series of several, from 0.")] = None,
    series: Annotated[
        str | None, typer.Option(help="UID of the series to take from DICOM folders; all: each volume as a case.")
    ] = None,
    fix_geometry: Annotated[bool, FIX_GEOMETRY] = False,
    values: Annotated[PixelValuesBy, VALUES] = READING["values"].default,
    monochrome1: Annotated[Monochrome1, MONOCHROME1] = READING["monochrome1"].default,
    device: Annotated[str | None, DEVICE] = None,
    batch_size: Annotated[int, BATCH_SIZE] = 1,
    overwrite: Annotated[bool, OVERWRITE] = False,
    private: Annotated[bool, PRIVATE] = False,
    engine: Annotated[Engine, typer.Option(help="local: this process; ray: workers of a Ray cluster or of this machine.")] = (
        Engine.LOCAL
    ),
    workers: Annotated[
        int | None, typer.Option(min=1, help="With --engine ray: number of workers; default: all that fit.")
    ] = None,
    repeat: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="CASE_ifim.json",
            help="Repeat the case of this sidecar and compare the results.",
        ),
    ] = None,
    quiet: Annotated[bool, QUIET] = False,
    as_json: Annotated[bool, JSON] = False,
    image: Annotated[Path | None, typer.Option(help="With --from: the image of the case; by default it is searched.")] = None,
) -> None:
    """Decompose images by the Fisher information of a bundle's classifier.

    Cases that are whole from an earlier run of the same input, model and settings are kept: run the same command again after
    an interruption. Ctrl-C stops once the cases in hand are done, a second one at once. Started by torchrun, each process
    takes its share.
    Exit status: 0 all cases done, 1 wrong use or no way to go on, 3 some cases failed (see cases.csv), 128 + N ended by a signal
    (130 Ctrl-C, 143 the system, 129 a closed terminal). Of --from: 0 the case agrees, 1 not, 4 there is nothing to compare.
    """
    quiet_libraries()
    if repeat is not None:
        if private and output is not None:
            from monai_ifim.io.private_folder import make_private

            make_private(output)
        repeat_from(context, repeat, image, bundle, output, device, given, expect_sha256)
        return
    inputs, bundle, output = needed(context, inputs, bundle, output, image)
    voice = Voice.of(quiet, as_json, speaks=int(os.environ.get("RANK", 0)) == 0)  # of many processes one speaks
    with voice.document("decompose") as told:
        console, told.output, told.further = voice.console, output, {"profile": None}
        with console.status("loading MONAI and the bundle"):
            from monai_ifim.cli.engines import chosen_engine
            from monai_ifim.cli.interruption import end_if_stopped, stopping, with_hint
            from monai_ifim.cli.origin import name_origin
            from monai_ifim.cli.progress import case_progress
            from monai_ifim.cli.summary import show_rows
            from monai_ifim.core.determinism import configure_cublas
            from monai_ifim.io.hidden_names import untold_names
            from monai_ifim.io.installation import resolve_bundle
            from monai_ifim.io.source import ValueChoice
            from monai_ifim.report.cohort.page import write_cohort
            from monai_ifim.run.cases import search_cases
            from monai_ifim.run.ranks import rank_of_process
            from monai_ifim.run.run_record import profile_of_run, record_unread
            from monai_ifim.run.settings import RunSettings
            from monai_ifim.run.stop_request import StopRequest

            case = given.settings()
            configure_cublas(case.deterministic)
            rank = rank_of_process()
            chosen = rank.device if device in (None, "cuda") else device
            settings = RunSettings(output, case, batch_size, chosen, overwrite, given.limits, private)
            with untold_names(inputs if case.case_names == "hash" else []):
                found = search_cases(inputs, frame, series, fix_geometry, ValueChoice(values, monochrome1))
            cases, unread = found.cases, found.told_unread(hidden=case.case_names == "hash")
            root = resolve_bundle(bundle)
            name_origin(console, root, expect_sha256)
            run, reading = chosen_engine(engine, workers, rank, root, settings)
            tell_head(console, reading, case.head)
        stop_request = StopRequest()
        with with_hint(), stopping(stop_request, rank.size), case_progress(console, rank.share(len(cases))) as report:
            rows = run(cases, report, stop_request)
        told.rows, told.unread, told.left = rows, unread, len(cases) - len(rows)
        if rank.number == 0:
            if unread:
                record_unread(output, unread)
            told.page = None if stop_request.due else write_cohort(output)
            told.further["profile"] = profile_of_run(output)
        show_rows(console, rows, output, unread, told.page)
        end_if_stopped(console, stop_request, rows, len(cases))
        if any(row.status == "failed" for row in rows):
            raise typer.Exit(3)
