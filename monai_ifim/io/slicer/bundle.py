"""A scene with its files as one archive, CASE.mrb."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET  # nosec B405 # see below
import zipfile
from pathlib import Path
from urllib.parse import unquote

from monai_ifim.io import atomic
from monai_ifim.io.containment import is_plain_name
from monai_ifim.io.digests import sha256_of_stream
from monai_ifim.io.errors import OutputError

NO_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of a zip entry
SCHEMA = ".schema.tsv"  # column types of a table; 3D Slicer finds it by its name


def write_scene_bundle(scene: Path) -> str:
    """Write CASE.mrb beside CASE.mrml, with the scene and its files in one folder; returns the hex SHA-256 of the archive.

    Whole or absent; the same files give the same bytes. Raises OutputError if the scene or one of its files is missing.
    """
    files = [scene, *(scene.parent / name for name in _named_files(scene))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise OutputError(f"{scene.name}: cannot bundle it without {', '.join(missing)}: run the case again, overwriting.")
    with atomic.replacement(scene.with_suffix(".mrb")) as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for file in files:  # volumes are compressed already
                _add(archive, file, f"{scene.stem}/{file.name}")
        stream.seek(0)
        return sha256_of_stream(stream)


def _named_files(scene: Path) -> list[str]:
    """Names of the files of a scene in its order, and of the schemas of its tables."""
    try:
        nodes = ET.fromstring(scene.read_bytes())  # nosec B314 # expat opens no external entity and bounds what entities grow to
    except (OSError, ET.ParseError) as error:
        raise OutputError(f"{scene.name}: not a readable scene ({error}): run the case again, overwriting.") from error
    names = [unquote(node.get("fileName", "")) for node in nodes]
    schemas = [name.removesuffix(".tsv") + SCHEMA for name in names if name.endswith(".tsv")]
    wanted = [name for name in names if name] + schemas
    outside = [name for name in wanted if not is_plain_name(name)]
    if outside:
        raise OutputError(f"{scene.name}: names {outside[0]!r}, which is not in its folder: run the case again, overwriting.")
    return wanted


def _add(archive: zipfile.ZipFile, file: Path, name: str) -> None:
    entry = zipfile.ZipInfo(name, NO_DATE)
    entry.create_system, entry.external_attr = 3, 0o644 << 16  # Unix: a file that all may read
    entry.file_size = file.stat().st_size  # beyond 2 GiB another format is needed
    with file.open("rb") as source, archive.open(entry, "w") as target:
        shutil.copyfileobj(source, target)
