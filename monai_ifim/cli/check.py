"""`monai-ifim check`: is a bundle's network fit for a decomposition?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monai_ifim.cli.summary import quiet_libraries


def check(
    bundle: Annotated[str, typer.Option(help="MONAI bundle: its folder, or the name of one that comes with the package.")],
    image: Annotated[
        Path | None, typer.Option(help="An image to probe with; random numbers of the stated shape without.")
    ] = None,
    head: Annotated[str, typer.Option(help="auto, categorical, bernoulli, gaussian or probabilities.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say whether a bundle's network can be decomposed. Exit status: 0 it can, 1 it cannot."""
    quiet_libraries()
    console = Console()
    with console.status("loading MONAI and the bundle"):
        from monai_ifim.adapt.bundle import load_bundle
        from monai_ifim.adapt.network import check_network
        from monai_ifim.adapt.options import DecomposeOptions
        from monai_ifim.io.installation import resolve_bundle

        loaded = load_bundle(resolve_bundle(bundle))
        probe = loaded.example(image)
        report = check_network(loaded.network, probe[None], DecomposeOptions(head), loaded.identity.class_names)
    if as_json:
        findings = [asdict(finding) for finding in report.findings]
        typer.echo(json.dumps({"bundle": asdict(loaded.identity), "fit": report.fit, "findings": findings}, indent=2))
    else:
        for finding in report.findings:
            mark = "ok    " if finding.passed else "FAILED"
            console.print(f"{mark} {finding.name}: {finding.detail}", markup=False, highlight=False, soft_wrap=True)
        console.print("fit for monai_ifim" if report.fit else "not fit for monai_ifim")
    if not report.fit:
        raise typer.Exit(1)
