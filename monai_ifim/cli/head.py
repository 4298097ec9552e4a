"""Tells which head is used and where that is read, before anything is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_ifim.options import on_command_line

if TYPE_CHECKING:
    from rich.console import Console

    from monai_ifim.adapt.head_reading.result import HeadReading
    from monai_ifim.core import Head


def tell_head(console: Console, reading: HeadReading, asked: str | Head) -> None:
    """Print the head and its source, and a warning where it is a guess; raises HeadError where the bundle does not say it."""
    reading.chosen(asked)
    console.print(f"head: {reading.told(asked)}", markup=False, highlight=False, soft_wrap=True)
    if asked == "auto" and reading.guess:
        warning = on_command_line(f"warning: the head is a guess ({reading.guess}): state it with head= if that is wrong")
        console.print(warning, style="yellow", markup=False, highlight=False, soft_wrap=True)
