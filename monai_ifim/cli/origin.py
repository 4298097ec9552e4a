"""Names the bundle whose code is about to run, before any of it does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def name_origin(console: Console, root: Path) -> None:
    """Print one line: the folder that the bundle in `root` really is, its version and the SHA-256 of its weights.

    Nothing of the bundle runs for it. Raises InputError where its metadata cannot be read.
    """
    from monai_ifim.io import identify_bundle

    identity = identify_bundle(root)
    version = f"version {identity.version}" if identity.version else "no version stated"
    weights = f"weights SHA-256 {identity.weights_sha256}" if identity.weights_sha256 else "no weights"
    text = f"bundle: {root.resolve()}, {version}, {weights}; its config is code of its author's, which runs now"
    console.print(text, markup=False, highlight=False, soft_wrap=True)
