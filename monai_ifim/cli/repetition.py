"""`monai-ifim decompose --from SIDECAR.json`: repeats a case and compares the results."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monai_ifim.display import numbers
from monai_ifim.options import LIMITS, on_command_line

if TYPE_CHECKING:
    from monai_ifim.cli.options import GivenSettings
    from monai_ifim.run.agreement import Quantity
    from monai_ifim.run.repetition import Repetition

DISAGREES, NOT_COMPARED = 1, 4
FREE = {
    "private",
    "repeat",
    "image",
    "bundle",
    "output",
    "device",
    "metric",
    "answer_mask",
    "regions",
    "expect_sha256",
    *LIMITS,
}  # the sidecar states everything else
STYLES = {"same": "green", "within": "green", "differs": "bold red"}


def needed(
    context: typer.Context, inputs: list[str] | None, bundle: str | None, output: Path | None, image: Path | None
) -> tuple[list[str], str, Path]:
    """The options that a run without --from needs; raises UsageError if one is missing or belongs to --from."""
    if image is not None:
        context.fail("--image needs --from: give images as INPUT.")
    if not inputs:
        context.fail("Missing argument 'INPUT...'.")
    if bundle is None:
        context.fail("Missing option '--bundle'.")
    if output is None:
        context.fail("Missing option '--output' / '-o'.")
    return inputs, bundle, output


def repeat_from(
    context: typer.Context,
    sidecar: Path,
    image: Path | None,
    bundle: str | None,
    output: Path | None,
    device: str | None,
    given: GivenSettings,
    expected: str | None,
) -> None:
    """Repeat a case and print the comparison. Exit status: 0 if it agrees, 1 if not, 4 if it could not be compared."""
    _check_alone(context)
    console = Console()
    try:
        found = _repeated(console, sidecar, image, bundle, output, device, given, expected)
    except Exception as error:
        from monai_ifim.io.errors import explained

        logging.getLogger("monai_ifim").debug("where the error arose:", exc_info=error)
        text = f"error: {on_command_line(explained(error))}"
        Console(stderr=True, soft_wrap=True).print(text, style="bold red", markup=False, highlight=False)
        raise typer.Exit(NOT_COMPARED) from error
    _show(console, found)
    if not found.agrees:
        raise typer.Exit(DISAGREES)


def _check_alone(context: typer.Context) -> None:
    """Raise UsageError for inputs and settings beside --from."""
    for parameter in context.command.params:
        source = context.get_parameter_source(str(parameter.name))
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in FREE:
            shown = "INPUT..." if parameter.name == "inputs" else parameter.opts[0]
            context.fail(f"--from takes inputs and settings from the sidecar: leave {shown} out.")


def _repeated(
    console: Console,
    sidecar: Path,
    image: Path | None,
    bundle: str | None,
    output: Path | None,
    device: str | None,
    given: GivenSettings,
    expected: str | None,
) -> Repetition:
    with ExitStack() as stack:
        stack.enter_context(console.status("repeating the case"))
        from monai_ifim.cli.origin import name_origin
        from monai_ifim.core.determinism import configure_cublas
        from monai_ifim.core.memory.scratch import ScratchFolder
        from monai_ifim.run.repetition import find_bundle, find_image, read_recorded_case, repeat_case, was_deterministic

        name, case = read_recorded_case(sidecar)
        source = find_image(case, image)
        root = find_bundle(case, bundle)
        name_origin(console, root, expected)
        configure_cublas(was_deterministic(case))
        folder = output or stack.enter_context(ScratchFolder()) / "repeated"  # with a table of pseudonyms beside it
        return repeat_case(name, case, root, source, folder, device, given.noise, given.limits, given.mask, given.regions)


def _show(console: Console, found: Repetition) -> None:
    """Print a table of changed conditions and of every result, then the verdict."""
    table = Table("", "recorded", "repeated", "difference", "allowed", "", box=None, pad_edge=False)
    for each in found.circumstances:
        if not each.same:
            table.add_row(_plain(each.name), _plain(_short(each.recorded)), _plain(_short(each.now)), "", "", Text("other"))
    for quantity in found.quantities:
        verdict = Text(quantity.verdict, style=STYLES[quantity.verdict])
        texts = (_plain(quantity.name), _plain(quantity.recorded), _plain(quantity.repeated))
        table.add_row(*texts, _number(quantity.difference), _number(quantity.allowed), verdict)
    console.print(table)
    for line in _verdict(found):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _verdict(found: Repetition) -> list[str]:
    if found.identical:
        return [f"{found.case} agrees bit for bit"]
    worst = _worst(found.quantities)
    away = f"{worst.name}, {_number(worst.difference)} apart where {_number(worst.allowed)} is allowed"
    why = f"likely cause: {', '.join(found.causes)}"
    if found.agrees:
        return [f"{found.case} agrees within what is allowed (most of it used by {away})", *([why] if found.causes else [])]
    unknown = (
        "nothing recorded differs: operations of the network that do not repeat (--deterministic), the bundle's own code, or "
        "result files that were changed"
    )
    return [f"{found.case} disagrees: {away}", why if found.causes else unknown]


def _worst(quantities: Sequence[Quantity]) -> Quantity:
    """The quantity with the largest difference relative to its tolerance."""
    return max(quantities, key=lambda each: each.difference / each.allowed if each.allowed else each.difference)


def _number(value: float) -> str:
    return numbers.number(value, 2)


def _short(text: str) -> str:
    """Text of at most 60 characters; a hash is cut to 12."""
    return text[:12] if len(text) == 64 else text[:60]


def _plain(text: str) -> Text:
    """Text from a sidecar on one line, without markup or control characters."""
    return Text(" ".join("".join(sign if sign.isprintable() else "?" for sign in text).split()))
