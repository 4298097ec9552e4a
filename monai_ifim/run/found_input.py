"""`FoundInput`: what a search of the inputs comes upon."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Beside = tuple[tuple[str, Any], ...]  # further entries of an image's data dictionary
Kind = Literal["image", "result", "index", "unread", "refused"]


@dataclass(frozen=True)
class FoundInput:
    """A file, or a folder that holds DICOM images.

    kind: "image"; "result" of an earlier run, which is left out; "index", a media directory; "unread", a file that may be an
    image but is of no format that is read; "refused", a place without an image. folders: those below what the user named in which
    it lies. beside: what a datalist names beside it. said: of "unread" the kind of file, of "refused" the reason, of a "result"
    its SOP class, if that tells it. label: a name of the case that replaces that of its path.
    """

    path: Path
    folders: tuple[str, ...] = ()
    beside: Beside = ()
    kind: Kind = "image"
    said: str = ""
    label: str | None = None
