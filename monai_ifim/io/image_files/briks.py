"""Pairs of files of AFNI: a text .HEAD and its voxels .BRIK, which may be compressed (AFNI's README.attributes)."""

from __future__ import annotations

from pathlib import Path

from monai_ifim.io.errors import InputError

HEAD, BRIK = ".HEAD", ".BRIK"
SUFFIXES = (".head", ".brik", ".brik.gz")


def files_of_dataset(path: Path) -> tuple[Path, ...]:
    """Header and voxels of a dataset of which one file is given; raises InputError if one is missing, or there twice."""
    stem = _stem(path)
    head = path.with_name(stem + HEAD)
    if not head.exists():
        raise InputError(f"{path.name}: its header, {head.name}, is not beside it: copy both into one folder.")
    found = [place for suffix in (BRIK, f"{BRIK}.gz") if (place := path.with_name(stem + suffix)).exists()]
    if len(found) != 1:
        said = "are not beside it" if not found else "are there twice, compressed and not"
        cure = "copy both into one folder, unpacked or as .BRIK.gz" if not found else "remove one"
        raise InputError(f"{head.name}: its voxels, {stem}{BRIK}, {said}: {cure}.")
    return head, found[0]


def header_of_dataset(path: Path) -> Path:
    """The header that lies beside voxels, by its name alone; `path` itself if there is none."""
    head = path.with_name(_stem(path) + HEAD)
    return head if head.exists() else path


def _stem(path: Path) -> str:
    given = next(suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if path.name.lower().endswith(suffix))
    return path.name[: -len(given)]
