"""`monai-ifim pacs`: pulls a study from a PACS and stores the maps in it."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monai_ifim.cli.head import tell_head
from monai_ifim.cli.options import (
    BATCH_SIZE,
    BUNDLE,
    DEVICE,
    EXPECT_SHA256,
    FIX_GEOMETRY,
    JSON,
    MAX_TRANSFER_SECONDS,
    MONOCHROME1,
    OUTPUT,
    OVERWRITE,
    PRIVATE_OR_NOT,
    QUIET,
    VALUES,
    GivenSettings,
    takes_settings,
)
from monai_ifim.cli.summary import quiet_libraries
from monai_ifim.cli.voice import Document, Voice
from monai_ifim.options import READING, TRANSFER, Monochrome1, PixelValuesBy

if TYPE_CHECKING:
    from monai_ifim.run.pacs import StoredMap
    from monai_ifim.run.table import CaseRow

MARKS = {"stored": "stored", "kept": "kept", "failed": "FAILED"}


@takes_settings(without=("dicom_pm",))
def pacs(
    url: Annotated[str, typer.Option(help="Address of the DICOMweb server, the part before /studies.")],
    study: Annotated[str, typer.Option(metavar="UID", help="Study Instance UID.")],
    bundle: Annotated[str, BUNDLE],
    output: Annotated[Path, OUTPUT],
    *,
    given: GivenSettings,
    expect_sha256: Annotated[str | None, EXPECT_SHA256] = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="UID of the series to take, if the study has several; all: each as a case.")
    ] = None,
    fix_geometry: Annotated[bool, FIX_GEOMETRY] = False,
    values: Annotated[PixelValuesBy, VALUES] = READING["values"].default,
    monochrome1: Annotated[Monochrome1, MONOCHROME1] = READING["monochrome1"].default,
    device: Annotated[str | None, DEVICE] = None,
    ca_bundle: Annotated[
        Path | None, typer.Option("--ca-bundle", help="PEM file of the authorities that may sign the server's certificate.")
    ] = None,
    audit_log: Annotated[
        Path | None, typer.Option(help="File that records each step; by default pacs-audit.jsonl in the folder for the results.")
    ] = None,
    store: Annotated[bool, typer.Option(" /--no-store", help="Pull and decompose only; leave the study as it is.")] = True,
    max_transfer_seconds: Annotated[int, MAX_TRANSFER_SECONDS] = TRANSFER["max_transfer_seconds"].default,
    batch_size: Annotated[int, BATCH_SIZE] = 1,
    overwrite: Annotated[bool, OVERWRITE] = False,
    private: Annotated[bool, PRIVATE_OR_NOT] = True,
    quiet: Annotated[bool, QUIET] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Pull a study by DICOMweb, decompose its images, and store the components in it as DICOM Parametric Maps.

    Who asks: the environment's IFIM_PACS_USER and IFIM_PACS_PASSWORD, or IFIM_PACS_TOKEN, or the netrc file. After an
    interruption run the same command again: what is whole is neither pulled, made nor sent twice.
    Exit status: 0 all done, 1 wrong use or no server, 3 some cases failed or some maps were not stored.
    """
    quiet_libraries()
    voice = Voice.of(quiet, as_json)
    with voice.document("pacs") as told, ExitStack() as recorded:
        console, told.output, told.further = voice.console, output, {"maps": []}
        with console.status("loading MONAI and the bundle"):
            from monai_ifim.adapt.bundle import load_bundle
            from monai_ifim.cli.interruption import end_if_stopped, stopping, with_hint
            from monai_ifim.cli.origin import name_origin
            from monai_ifim.cli.progress import case_progress
            from monai_ifim.cli.summary import show_rows
            from monai_ifim.core.determinism import configure_cublas
            from monai_ifim.io.case_files import AUDIT_LOG
            from monai_ifim.io.dicomweb.access import access_to
            from monai_ifim.io.dicomweb.client import DicomWeb, checked_uid
            from monai_ifim.io.installation import resolve_bundle
            from monai_ifim.io.private_folder import make_private
            from monai_ifim.io.source import ValueChoice
            from monai_ifim.report.cohort.page import write_cohort
            from monai_ifim.run.audit_trail import AuditTrail
            from monai_ifim.run.cases import EVERY_SERIES
            from monai_ifim.run.local import run_locked
            from monai_ifim.run.output_folder import held_output
            from monai_ifim.run.pacs import cases_of, choose_series, pull_series, store_maps
            from monai_ifim.run.ranks import rank_of_process
            from monai_ifim.run.settings import RunSettings
            from monai_ifim.run.stop_request import StopRequest

            if audit_log is None and private:
                make_private(output)  # before the log lies in it
            trail = AuditTrail(audit_log or output / AUDIT_LOG)
            recorded.enter_context(_terminable())
            recorded.enter_context(trail.step("run", stores=store))
            access, study = access_to(url, ca_bundle), checked_uid(study, "--study")
            if series not in (None, EVERY_SERIES):
                checked_uid(str(series).partition("#")[0], "--series")
            trail.about |= {"server": access.server, "server_user": access.user, "study": study}
            case = given.settings(dicom_pm=store)
            configure_cublas(case.deterministic)
            chosen_device = device or rank_of_process().device
            settings = RunSettings(output, case, batch_size, chosen_device, overwrite, given.limits, private)
            root = resolve_bundle(bundle)
            trail.about |= _hashes(root)
            name_origin(console, root, expect_sha256)
            loaded = load_bundle(root, settings.device)
            tell_head(console, loaded.head, case.head)
        if access.exposed:
            console.print("The address begins with http://: patients' data travel in the clear.", style="yellow")
        recorded.enter_context(held_output(output, private))
        server = recorded.enter_context(DicomWeb(access, largest=given.limits.bytes, seconds=max_transfer_seconds))
        with console.status(f"asking {server.name}"), trail.step("list") as listed:
            chosen = choose_series(server, study, series)
            listed["series"] = [one.uid for one in chosen]
        with _pulling(console, sum(len(one.instances) for one in chosen)) as pulled:
            folders = pull_series(server, study, chosen, output, pulled, trail)
        cases = cases_of(folders, chosen, series, fix_geometry, ValueChoice(values, monochrome1))
        stop_request = StopRequest()
        with with_hint(), stopping(stop_request), case_progress(console, len(cases)) as report, trail.step("decompose") as made:
            rows = run_locked(loaded, cases, settings, report, stop_request, report.activity)
            made.update(Counter(row.status for row in rows), outcome="interrupted" if stop_request.due else "done")
        told.rows, told.left = rows, len(cases) - len(rows)
        told.page = None if stop_request.due else write_cohort(output)
        show_rows(console, rows, output, page=told.page)
        end_if_stopped(console, stop_request, rows, len(cases))
        stored = store_maps(server, study, output, rows, lambda one: _tell_map(console, told, one), trail) if store else []
        _conclude(console, rows, stored, store)


def _conclude(console: Console, rows: list[CaseRow], stored: list[StoredMap], store: bool) -> None:
    """Say how many maps were stored; exit status 3 where something failed."""
    counts = Counter(one.status for one in stored)
    if store:
        console.print(f"maps: {counts['stored']} stored in the study, {counts['kept']} there already, {counts['failed']} failed")
    if counts["failed"] or any(row.status == "failed" for row in rows):
        raise typer.Exit(3)


def _hashes(root: Path) -> dict[str, str | None]:
    """Name and hashes of the bundle, for the audit trail."""
    from monai_ifim.io import identify_bundle

    known = identify_bundle(root)
    return {
        "bundle": known.name,
        "bundle_version": known.version,
        "bundle_sha256": known.bundle_sha256,
        "weights_sha256": known.weights_sha256,
    }


@contextmanager
def _terminable() -> Iterator[None]:
    """Inside the block SIGTERM, unless it is ignored or handled already, ends the verb as Ctrl-C does, with exit status 143."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def _pulling(console: Console, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar that the callable moves on by one image."""
    with Progress(TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("images", total=total)
        yield lambda: progress.advance(task)


def _tell_map(console: Console, told: Document, one: StoredMap) -> None:
    line = f"{MARKS[one.status]:7s} {one.file}{f': {one.reason}' if one.reason else ''}"
    told.further["maps"].append({"file": one.file, "status": one.status, "reason": one.reason or None})
    if one.status == "failed":
        told.failures = [*told.failures, line]
    console.print(line, markup=False, highlight=False, soft_wrap=True)
