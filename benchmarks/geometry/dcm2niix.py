"""dcm2niix's side: a folder of DICOM files converted into a temporary folder, and the volumes that came out."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from benchmarks.geometry.volume import Array, Volume, volume_of

PROGRAM = "dcm2niix"
# No sidecar, no compression, slopes of display values (those of the standard, where Philips states its own too), this folder
# alone, files called by the series UID: what dcm2niix would otherwise use holds text of the header.
OPTIONS = ("-b", "n", "-z", "n", "-p", "n", "-d", "0", "-f", "%j")
LONGEST = 600  # seconds
DERIVED = re.compile("_(Tilt|Eq|ROI[0-9]*)(_|$)")  # files that dcm2niix resamples from one that it also writes, and overlays
# dcm2niix quotes paths and headers: its messages are told by words of this table, others by their number alone.
MESSAGES = {
    r"Interslice distance varies": "gaps vary",
    r"gantry tilt|Gantry Tilt": "tilted gantry",
    r"DUPLICATES REMOVED": "duplicates removed",
    r"Unsupported transfer syntax": "a transfer syntax that it does not decode",
    r"Compressed image stored as": "several fragments, which it does not decode",
    r"Unable to decode|Unable to decompress": "pixels that it does not decode",
    r"File not large enough": "a file that is too short",
    r"MOSAIC but number of slices not specified": "a mosaic without its number of slices",
    r"Unable to determine spatial orientation": "no orientation",
    r"Unable to determine slice direction": "no slice direction",
    r"Bogus spatial matrix": "no place",
    r"Empty protocol name|determine manufacturer|GE Slice timing|Image Decompression is new|Correction is new": "",
    r"Siemens MoCo|append protocol name|[Ss]lice timing": "",
    r"Slice re-ordering resolved": "slices sorted",
    r"ignoring|Ignoring": "something ignored",
    r"missing images|Missing images|Only \d+ of": "images missing",
    r"unable to find|Unable to find|No valid DICOM": "no DICOM image",
    r"Unable to convert": "not converted",
    r"[Ss]egmentation|[Oo]verlay": "",
}
SPOKEN = re.compile(r"Warning|Error|Unable|DUPLICATES|Gantry|re-ordering|[Ii]gnoring", flags=re.ASCII)


@dataclass(frozen=True)
class Conversion:
    """What dcm2niix made of a folder: volumes, each of a 4D file by itself, and its messages in the words of the table."""

    volumes: tuple[Volume, ...]
    messages: tuple[str, ...]

    def of_series(self, series: str) -> list[Volume]:
        """The volumes of a series, by its UID; all of them for a key that is none, as the product gives to damaged ones."""
        if not re.fullmatch("[0-9.]+", series):
            return list(self.volumes)
        return [volume for volume in self.volumes if series_of(volume) == series]

    @property
    def said(self) -> str:
        """The messages in one line."""
        return "; ".join(self.messages)


def convert(folder: Path, scratch: Path) -> Conversion:
    """Convert the DICOM files of a folder, not of those in it; scratch: an empty folder."""
    words = [PROGRAM, *OPTIONS, "-o", str(scratch), str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return Conversion((), ("not done in ten minutes",))
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    messages = told(lines) + ([f"ended by signal {-done.returncode}"] if done.returncode < 0 else [])
    return Conversion(tuple(volume for path in sorted(scratch.glob("*.nii")) for volume in _volumes(path)), tuple(messages))


def program_version() -> str:
    """Name and version of the program."""
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=False)  # ends with status 3
    found = re.search(r"v1\.0\.\d+", done.stdout)
    return f"{PROGRAM} {found.group()}" if found else PROGRAM


def series_of(volume: Volume) -> str:
    """The series UID in the name of a volume."""
    return re.split("[^0-9.]", volume.name, maxsplit=1)[0]


def told(lines: list[str]) -> list[str]:
    """The warnings and errors among lines of dcm2niix, in the words of `MESSAGES`, each once."""
    said: dict[str, None] = {}
    for line in lines:
        if not SPOKEN.search(line):
            continue
        words = next((words for pattern, words in MESSAGES.items() if re.search(pattern, line)), "another message")
        if words:
            said[words] = None
    return list(said)


def _volumes(path: Path) -> Iterator[Volume]:
    if DERIVED.search(path.stem):
        return
    image: Any = nib.load(path)
    values = _values(image)
    several = values.reshape(*values.shape[:3], -1) if values.dtype.names is None else values[..., None]
    for k in range(several.shape[3]):
        name = path.stem if several.shape[3] == 1 else f"{path.stem} {k}"
        yield volume_of(_channels(several[..., k]), image.affine, name)


def _values(image: Any) -> Array:
    values: Array = np.asanyarray(image.dataobj)
    return values.reshape(*values.shape, *[1] * (3 - values.ndim))


def _channels(values: Array) -> Array:
    """Colours as numbers along a last axis."""
    return values if values.dtype.names is None else np.stack([values[name] for name in values.dtype.names], axis=-1)
