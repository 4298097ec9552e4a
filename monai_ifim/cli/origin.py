"""Names the bundle whose code is about to run, before any of it does, and refuses another than the expected one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from monai_ifim.io import ModelIdentity

SHA256 = re.compile(r"(sha256:)?([0-9a-f]{64})", re.IGNORECASE)


def name_origin(console: Console, root: Path, expected: str | None = None) -> None:
    """Print what the bundle is intended for, where it says so, and one line more: the folder that it really is, its version, the
    file of its weights, and the SHA-256 of both weights and whole bundle.

    Nothing of the bundle runs for it. expected: a SHA-256 that its weights or the whole bundle must have. Raises InputError where
    they do not, or where the bundle's metadata cannot be read.
    """
    from monai_ifim.io import identify_bundle
    from monai_ifim.io.model import weights_path

    identity, file = identify_bundle(root), weights_path(root)
    version = f"version {identity.version}" if identity.version else "no version stated"
    weights = "no weights" if file is None else f"weights {file.relative_to(root)} of SHA-256 {identity.weights_sha256}"
    agreed = "" if expected is None else f" ({_agreement(identity, root, expected)})"
    if identity.intended_use.text is not None:
        said = f"{identity.name}, intended use: {identity.intended_use.text}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
    named = f"bundle: {root.resolve()}, {version}, {weights}, whole bundle of SHA-256 {identity.bundle_sha256}{agreed}"
    console.print(f"{named}; its config is code of its author's, which runs now", markup=False, highlight=False, soft_wrap=True)


def _agreement(identity: ModelIdentity, root: Path, expected: str) -> str:
    """What has the expected SHA-256; raises InputError if neither the weights nor the whole bundle have it."""
    from monai_ifim.io import InputError

    stated = SHA256.fullmatch(expected.strip())
    if stated is None:
        raise InputError(
            "--expect-sha256: give the 64 hexadecimal digits of a SHA-256, of the weights' file or of the whole bundle."
        )
    wanted = stated[2].lower()
    if wanted == identity.bundle_sha256:
        return "as expected"
    if wanted == identity.weights_sha256:
        return "the weights as expected; the hash of the whole bundle would cover its code too"
    raise InputError(
        f"bundle {root.resolve()}: not the bundle of SHA-256 {wanted} (its weights have {identity.weights_sha256}, the whole "
        f"bundle has {identity.bundle_sha256}), and nothing of it was run: get the bundle that was expected, or ask who stated "
        "the hash."
    )
