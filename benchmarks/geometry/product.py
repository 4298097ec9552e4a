"""The product's side: the volumes below a folder as `decompose --series all` finds them, each read as it would read them."""

from __future__ import annotations

import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pydicom

import monai_ifim
from benchmarks.geometry.volume import Refused, Volume, volume_of
from monai_ifim.adapt.bundle import Bundle, load_bundle
from monai_ifim.core.errors import IFIMError
from monai_ifim.io import OpenedSource, Source
from monai_ifim.io.dicom.header import dicom_files, is_dicom, read_dicom_file
from monai_ifim.io.dicom.object_kinds import NoImageError
from monai_ifim.io.dicom.reader import known_volume
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.errors import reason_of
from monai_ifim.io.geometry import world_affine
from monai_ifim.io.installation import resolve_bundle
from monai_ifim.io.limits import Limits
from monai_ifim.io.source import IMAGE_SUFFIXES
from monai_ifim.io.stated_size import check_size
from monai_ifim.run.cases import EVERY_SERIES, find_cases

PACKAGE = Path(monai_ifim.__file__).parent
PLACELESS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".npy", ".npz")  # formats without a place in the world
MOST_FRAMES = 3  # volumes of a 4D file that are compared: the first, one in the middle, and the last


@dataclass(frozen=True)
class Input:
    """A volume that the product finds, or a folder in which it finds none, with the reason.

    name: its path below the folder that was searched, and which of several volumes it is.
    """

    name: str
    source: Source
    refused: Refused | None = None

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return self.source.path if self.source.path.is_dir() else self.source.path.parent


@dataclass(frozen=True)
class Reading:
    """What the product makes of an input: a volume or a refusal.

    key, files: of its DICOM volume. said: words beside the result.
    """

    made: Volume | Refused
    key: str | None = None
    files: tuple[Path, ...] = ()
    said: tuple[str, ...] = ()

    @property
    def series(self) -> str | None:
        """The series UID."""
        return None if self.key is None else self.key.partition("#")[0]


def inputs_below(root: Path) -> list[Input]:
    """All volumes below a folder; of 4D files, three. Photographs and arrays, which have no place, are left out."""
    found = [each for each in _found(root, root) if each.source.suffix not in PLACELESS]
    repeated, seen, numbered = Counter(each.name for each in found), Counter[str](), []
    for each in found:
        seen[each.name] += 1
        several = repeated[each.name] > 1 and each.refused is None
        numbered.append(replace(each, name=f"{each.name} #{seen[each.name]}") if several else each)
    return [part for each in numbered for part in _frames(each)]


def read(given: Input, scratch: Path) -> Reading:
    """Read an input as `decompose` does; scratch: an empty folder."""
    if given.refused is not None:
        return Reading(given.refused)
    opened = OpenedSource(given.source)
    volume: DicomVolume | None = None
    words: tuple[str, ...] = ()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            volume = opened.volume if opened.files else None
            made: Volume | Refused = _read(opened, scratch)
            words = opened.reading.words()
        except Exception as error:
            made = refusal_of(error)
    words += tuple(str(warning.message) for warning in said if warning.category.__module__.startswith("monai_ifim"))
    key, files = (None, ()) if volume is None else (volume.key, volume.files)
    return Reading(made, key, files, tuple(dict.fromkeys(words)))


def passed_over(folder: Path) -> dict[str, str]:
    """Series in a folder whose objects the product passes over, such as doses and segmentations, with the name of their kind."""
    found = {}
    for path in dicom_files(folder):
        refusal = read_dicom_file(path).refusal
        if isinstance(refusal, NoImageError):
            header = pydicom.dcmread(path, specific_tags=["SeriesInstanceUID"], force=True)
            found[str(header.get("SeriesInstanceUID", ""))] = refusal.kind.name
    return found


def refusal_of(error: Exception) -> Refused:
    """The message of an error of the product's; of any other, its type and where it arose, as its text may quote a header."""
    if isinstance(error, IFIMError):
        return Refused(reason_of(error))
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(PACKAGE)]
    place = (
        f"{Path(frames[-1].filename).relative_to(PACKAGE).as_posix()}:{frames[-1].lineno}" if frames else "outside of the package"
    )
    return Refused(f"{type(error).__name__}", traceback=place)


@cache
def _bundle() -> Bundle:
    return load_bundle(resolve_bundle("lumpy_lesion_detection_3d"))


def _read(opened: OpenedSource, scratch: Path) -> Volume:
    opened.check(channels=None)
    check_size(opened, Limits())
    path = opened.readable_path(scratch)
    with known_volume(path, opened.readable_volume):
        image = _bundle().read(path)[_bundle().file_key]
    values = np.moveaxis(image.detach().cpu().numpy(), 0, -1)
    return volume_of(values, world_affine(image.affine.cpu().numpy(), image.meta))


def _found(folder: Path, root: Path) -> Iterator[Input]:
    """The volumes in a folder; where a run on it ends with an error, that error, and the volumes of each folder in it."""
    try:
        cases = find_cases([folder], series=EVERY_SERIES)
    except Exception as error:
        yield Input(_name(folder, root), Source(folder), refusal_of(error))
        for child in sorted(folder.iterdir()):
            folder_below = child.is_dir() and not child.is_symlink()
            if folder_below or (child.name.lower().endswith(IMAGE_SUFFIXES) and not is_dicom(child)):
                yield from _found(child, root)
        return
    yield from (Input(_name(case.source.path, root), case.source) for case in cases)


def _name(path: Path, root: Path) -> str:
    return root.name if path == root else path.relative_to(root).as_posix()


def _frames(given: Input) -> list[Input]:
    """The input, or some frames of a 4D file."""
    try:
        single = given.refused is not None or given.source.path.is_dir()
        count = 1 if single else OpenedSource(given.source).frames
    except Exception:  # told when it is read
        count = 1
    if count == 1:
        return [given]
    chosen = sorted({round(float(each)) for each in np.linspace(0, count - 1, min(count, MOST_FRAMES))})
    return [Input(f"{given.name} frame {k} of {count}", replace(given.source, frame=k)) for k in chosen]
