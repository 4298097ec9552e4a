"""Folders of the bundles and configs that come with the package, installed or in a checkout.

Errors are imported where they are raised, so that looking up a path does not import torch.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent


def bundles_folder() -> Path:
    """Folder of the bundles that come with the package."""
    return _shipped("bundles")


def resolve_bundle(name: str) -> Path:
    """A bundle's folder: a path, or the name of a bundle that comes with the package; raises InputError if it is neither."""
    for candidate in (Path(name), bundles_folder() / name):
        if (candidate / "configs").is_dir():
            return candidate
    from monai_ifim.io.errors import InputError

    shipped = ", ".join(sorted(path.name for path in bundles_folder().iterdir() if (path / "configs").is_dir()))
    raise InputError(f"{name}: no bundle there (a folder with configs/ and models/ is one), nor one of {shipped}.")


def configs_folder() -> Path:
    """Folder of the overlays and experiments that come with the package."""
    return _shipped("configs")


def resolve_experiment(name: str) -> Path:
    """An experiment's file: a path, or the name of one that comes with the package; raises InputError if it is neither."""
    folder = configs_folder() / "evaluation"
    for candidate in (Path(name), folder / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    from monai_ifim.io.errors import InputError

    shipped = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise InputError(f"{name}: no such file, nor one of the experiments that come with the package ({shipped}).")


def _shipped(name: str) -> Path:
    """In a wheel the folder lies inside the package; in a checkout beside it."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name
