"""`monai-ifim evaluate`: perturbation experiments on trained networks or on a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from monai_ifim.cli.options import EXPECT_SHA256, PRIVATE
from monai_ifim.cli.summary import quiet_libraries

CACHE_VARIABLE = "MONAI_IFIM_CACHE"


def evaluate(
    context: typer.Context,
    config: Annotated[str, typer.Argument(help="Experiment: a YAML file, or the name of one that comes with the package.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for tables, results.json, figures and the page.")],
    bundle: Annotated[str | None, typer.Option(help="For 'bundle': the MONAI bundle to evaluate.")] = None,
    expect_sha256: Annotated[str | None, EXPECT_SHA256] = None,
    datalist: Annotated[Path | None, typer.Option(help="For 'bundle': JSON datalist with labels.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Test images a cell, in place of the experiment's number.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only this model; may be repeated.")] = None,
    assign: Annotated[list[str] | None, typer.Option("--set", help="Another value of the config: NAME=VALUE.")] = None,
    cache: Annotated[Path | None, typer.Option(help=f"Folder for trained weights; default ${CACHE_VARIABLE}, ~/.cache.")] = None,
    device: Annotated[
        str, typer.Option(help="Where images are measured: cpu, cuda, cuda:1, mps. Trainings run on the CPU.")
    ] = "cpu",
    private: Annotated[bool, PRIVATE] = False,
) -> None:
    """Does noise in the leading eigenspace move the answer more than equally large noise elsewhere?

    Trains or loads the classifiers, decomposes, perturbs, measures, tests, draws. An interrupted run goes on where it was.
    Exit status: 0 all cells done, 1 wrong use, 3 some cells failed (see results.json).
    """
    if expect_sha256 is not None and bundle is None:
        context.fail("--expect-sha256 needs --bundle: the experiment's own networks are trained here.")
    quiet_libraries()
    console = Console()
    with console.status("loading MONAI"):
        from monai_ifim.cli.origin import name_origin
        from monai_ifim.evaluation.experiment import load_experiment, only, parse_overrides, run_experiment
        from monai_ifim.io.installation import resolve_bundle, resolve_experiment
        from monai_ifim.report.experiment.page import write_report
        from monai_ifim.run.output_folder import held_output
        from monai_ifim.run.settings import check_device

        overrides = parse_overrides(assign or [])
        given = {"bundle": bundle, "datalist": None if datalist is None else str(datalist), "images": images}
        overrides |= {name: value for name, value in given.items() if value is not None}
        check_device(device)
        if bundle is not None:
            name_origin(console, resolve_bundle(bundle), expect_sha256)
        experiment = only(load_experiment(resolve_experiment(config), overrides), task, model)
    with held_output(output, private):
        with _progress(console) as bars:
            record = run_experiment(experiment, output, cache or default_cache(), bars, _command(config, overrides), device)
        written = write_report(output)
    total = record.claim.total
    console.print(
        f"high sensitivity moves the answer more in {total.holds} of {total.cells} cells; "
        f"{len(record.failed)} failed; page: {written[-1]}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if record.failed:
        raise typer.Exit(3)


def default_cache() -> Path:
    """Where trained weights are kept between runs."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path.home() / ".cache" / "monai_ifim"


def _command(config: str, overrides: dict[str, object]) -> str:
    """The command that repeats the experiment, with placeholders for folders."""
    settings = "".join(
        f" --set {name}={value}" for name, value in overrides.items() if name not in ("bundle", "datalist", "data_root")
    )
    folders = "".join(f" --{name} {name.upper()}" for name in ("bundle", "datalist") if name in overrides)
    return f"monai-ifim evaluate {Path(config).name}{folders}{settings} --output OUT"


class _Bars:
    """Two progress bars: cells, and epochs or images of the current cell."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.cells = progress.add_task("cells", total=None)
        self.stage = progress.add_task("", total=None)

    def cell(self, name: str, done: int, total: int) -> None:
        self.progress.update(self.cells, description=f"cell: {name}", completed=done, total=total)

    def advance(self, stage: str, done: int, total: int) -> None:
        self.progress.update(self.stage, description=stage, completed=done, total=total)

    def failed(self, name: str, reason: str) -> None:
        self.progress.console.print(f"FAILED  {name}: {reason}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(console: Console) -> Iterator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)
