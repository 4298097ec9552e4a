"""`monai-ifim config`: prints the paths of the config overlays for MONAI bundles."""

from __future__ import annotations

from typing import Annotated

import typer


def config(
    name: Annotated[str, typer.Argument(help="The overlay: ifim, or ifim_inferer.", show_default=False)],
) -> None:
    """Print the path of an overlay that adds the decomposition to a MONAI bundle.

    python -m monai.bundle run --config_file "['configs/inference.json','$(monai-ifim config ifim)']" --bundle_root .
    """
    from monai_ifim.io.installation import configs_folder

    overlays = {path.stem: path for path in sorted(configs_folder().glob("*.yaml"))}
    if name not in overlays:
        from monai_ifim.io import InputError

        raise InputError(f"{name}: no such overlay: choose one of {', '.join(overlays)}.")
    typer.echo(overlays[name])
