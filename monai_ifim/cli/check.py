"""`monai-ifim check`: is a bundle's network fit for a decomposition, and what will an image cost?"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from monai_ifim.cli.options import BUNDLE, DEVICE, EXPECT_SHA256, GivenSettings, takes_settings
from monai_ifim.cli.summary import quiet_libraries
from monai_ifim.options import DECOMPOSITION, on_command_line

if TYPE_CHECKING:
    from rich.status import Status

    from monai_ifim.adapt.check.findings import Finding, NetworkReport
    from monai_ifim.io import ModelIdentity

MARKS = {(True, True): "ok    ", (True, False): "unsure", (False, True): "FAILED", (False, False): "FAILED"}


@takes_settings(*(name for name in DECOMPOSITION if name not in ("locality", "verify", "coordinates")))
def check(
    bundle: Annotated[str, BUNDLE],
    image: Annotated[
        Path | None, typer.Option(help="Image to probe with; by default random numbers of the shape in metadata.json.")
    ] = None,
    *,
    given: GivenSettings,
    expect_sha256: Annotated[str | None, EXPECT_SHA256] = None,
    device: Annotated[str | None, DEVICE] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output and nothing else.")] = False,
) -> None:
    """Say whether a bundle's network can be decomposed, and what one image will cost with these options.

    Each finding is printed when it is known, in no more time than 15 forward passes take. Exit status: 0 it can, 1 it cannot.
    """
    quiet_libraries()
    console = Console(stderr=as_json)
    with redirect_stdout(sys.stderr) if as_json else nullcontext(), console.status("loading MONAI and the bundle") as status:
        from monai_ifim.core import IFIMError

        refusal: IFIMError | None = None
        try:
            identity, report = _probed(bundle, image, given, device, expect_sha256, console, status)
        except IFIMError as error:
            refusal = error
    if refusal is not None:
        if as_json:
            said = on_command_line(str(refusal))
            typer.echo(json.dumps({"bundle": {"name": bundle}, "fit": False, "error": said, "findings": []}, indent=2))
            raise typer.Exit(1)
        raise refusal
    if as_json:
        content: dict[str, Any] = {"bundle": identity.described(), "fit": report.fit, **asdict(report)}
        content["findings"] = [one | {"detail": on_command_line(one["detail"])} for one in content["findings"]]
        typer.echo(json.dumps(content, indent=2))
    else:
        console.print("fit for monai_ifim" if report.fit else "not fit for monai_ifim")
    if not report.fit:
        raise typer.Exit(1)


def _probed(
    bundle: str,
    image: Path | None,
    given: GivenSettings,
    device: str | None,
    expected: str | None,
    console: Console,
    status: Status,
) -> tuple[ModelIdentity, NetworkReport]:
    """Name the bundle's origin, load it and probe its network, telling each finding; raises IFIMError if either fails."""
    import torch

    from monai_ifim.adapt.bundle import load_bundle
    from monai_ifim.adapt.check.findings import Listener
    from monai_ifim.adapt.check.network import check_bundle
    from monai_ifim.cli.origin import name_origin
    from monai_ifim.io.installation import resolve_bundle
    from monai_ifim.run.settings import check_device

    settings = given.settings()
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(chosen)
    root = resolve_bundle(bundle)
    name_origin(console, root, expected)
    loaded = load_bundle(root, chosen)

    def tell(finding: Finding) -> None:
        said = f"{MARKS[finding.passed, finding.certain]} {finding.name}: {on_command_line(finding.detail)}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)

    listener = Listener(tell, lambda words: status.update(f"looking at {words}"))
    return loaded.identity, check_bundle(loaded, image, settings, chosen, listener)
