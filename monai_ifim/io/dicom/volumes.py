"""Volumes in a folder of DICOM files: instances grouped by their headers and sorted along their normal.

A series is not a volume: one series UID may hold scouts, echoes or time points, and a folder may hold several series
(PS3.3, C.7.6.2 Image Plane; C.7.6.16 Multi-frame Functional Groups). No pixel is read here, but for two files of one instance.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydicom.config import disable_value_validation

from monai_ifim.io.dicom.assembly import volume_of, volume_of_mosaic, volume_without_place
from monai_ifim.io.dicom.dimensions import instance_number
from monai_ifim.io.dicom.grouping import alike, turned
from monai_ifim.io.dicom.header import NO_NUMBERS, DicomFile, read_dicom_file
from monai_ifim.io.dicom.identity import Identity, differing
from monai_ifim.io.dicom.instances import Instance, instances_of
from monai_ifim.io.dicom.object_kinds import NoImageError
from monai_ifim.io.dicom.planes import Plane, frames_of, planes_of
from monai_ifim.io.dicom.separation import Separation, separated
from monai_ifim.io.dicom.stacks import stacks_of
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.errors import InputError
from monai_ifim.io.reading import Reading, listed

Result = TypeVar("Result")
Place = tuple[tuple[float, ...], str]  # in a series: the first Instance Number, and the first name, of a group of files
Found = tuple[Place, DicomVolume]

MOST_LISTED = 12  # volumes of a folder that an error message lists


def index_dicom(files: Iterable[Path]) -> list[DicomVolume]:
    """`volumes_of` files that are known to be DICOM, by their paths."""
    return volumes_of(map(read_dicom_file, files))


def volumes_of(files: Iterable[DicomFile]) -> list[DicomVolume]:
    """The volumes among some DICOM files, by series, and in the order of each. Reports, plans and the like are left out.

    That order is that of time, echo or b-value (`separation`), else of its Instance Numbers. Raises InputError for a
    file whose header is damaged or holds text instead of numbers, for two files of one instance that differ, and if no file is an
    image.
    """
    other: NoImageError | None = None
    images = []
    for file in files:
        if isinstance(file.refusal, NoImageError):
            other = other or file.refusal
        elif file.refusal is not None:
            raise file.refusal
        else:
            images.append(file)
    if other is not None and not images:
        raise other
    with disable_value_validation():  # its warnings would show the patient's data
        instances = instances_of(images)
        found = _found([instance.file for instance in instances])
    found.sort(key=lambda each: (each[1].series, each[0]))
    return _compared(_numbered([volume for _, volume in found]), instances)


def _found(files: Iterable[DicomFile]) -> list[Found]:
    """The volumes with their places in the order of their series; those of one group follow each other."""
    groups: dict[Hashable, list[Plane]] = defaultdict(list)
    found: list[Found] = []
    for file in files:
        place = (instance_number(file.header), str(file.path))
        if file.mosaic is not None:
            found.append((place, _converted(file.path, volume_of_mosaic, file.path, file.header, file.mosaic)))
            continue
        planes = _converted(file.path, planes_of, file.path, file.header)
        if not planes:
            found.append((place, _converted(file.path, volume_without_place, file.path, file.header)))
        for plane in planes:
            groups[_group_of(plane)].append(plane)
    for planes in groups.values():
        for part in _converted(planes[0].path, alike, planes):
            for stack in _converted(part[0].path, stacks_of, part):
                found += _converted(stack[0].path, _volumes, stack)
    return found


def _group_of(plane: Plane) -> Hashable:
    """The key that all slices of a volume share, whatever their orientation and spacing; a multi-frame file is its own."""
    if frames_of(plane.header) > 1:
        return plane.path
    return (str(plane.header.get("SeriesInstanceUID", "")), int(plane.header.Rows), int(plane.header.Columns))


def _volumes(planes: Sequence[Plane]) -> list[Found]:
    parts = separated(planes)
    numbers = [(*instance_number(plane.header), float(plane.frame or 0)) for plane in planes]
    place = (min(numbers), min(str(plane.path) for plane in planes))
    return [(place, _described(part, parts)) for part in parts.volumes]


def _described(planes: Sequence[Plane], parts: Separation) -> DicomVolume:
    volume = volume_of(planes)
    reading = replace(volume.reading, volumes_differ_in=parts.differ or None)
    return replace(volume, complaint=parts.complaint or turned(planes), reading=reading)


def _numbered(volumes: Sequence[DicomVolume]) -> list[DicomVolume]:
    """Volumes with their numbers in the key and in the reading, where a series holds several."""
    several, seen = Counter(volume.series for volume in volumes), Counter[str]()
    numbered = []
    for volume in volumes:
        count, number = several[volume.series], seen[volume.series]
        seen[volume.series] += 1
        if count > 1:
            reading = replace(volume.reading, volume=number, volumes=count)
            volume = replace(volume, key=f"{volume.series}#{number + 1}", reading=reading)
        numbered.append(volume)
    return numbered


def _compared(volumes: Sequence[DicomVolume], instances: Sequence[Instance]) -> list[DicomVolume]:
    """The volumes with what disagrees in them, or between those of one series (which of its patients were it of?), and with the
    number of files that only repeat others."""
    files = {each.file.path: (each.file, *each.repeats) for each in instances}
    identities: dict[str, list[Identity]] = {}

    def of(volume: DicomVolume) -> list[Identity]:
        return [file.identity for path in volume.files for file in files[path] if file.identity is not None]

    for volume in volumes:
        identities.setdefault(volume.series, []).extend(of(volume))
    return [
        replace(
            volume,
            disagreeing=differing(of(volume), identities[volume.series]),
            reading=_repeated(volume.reading, sum(len(files[path]) - 1 for path in volume.files)),
        )
        for volume in volumes
    ]


def _repeated(reading: Reading, count: int) -> Reading:
    return replace(reading, repeated_instances=count) if count else reading


def choose_volume(name: str, volumes: Sequence[DicomVolume], series: str | None, frame: int | None = None) -> DicomVolume:
    """The only volume, the one that `series` names by its key, or number `frame`, from 0, of its series.

    Otherwise raises InputError with a list of the volumes. A frame is none of a series of one volume, which then is taken.
    """
    wanted = list(volumes) if series is None else [v for v in volumes if series in (v.key, v.series)]
    one_series = len({volume.series for volume in wanted}) == 1
    if len(wanted) == 1:
        return wanted[0]
    if one_series and frame is not None:
        if frame < len(wanted):
            return wanted[frame]
        raise InputError(f"{name}: there is no frame {frame}; {_count(wanted)}, counted from 0.")
    held = "; ".join(volume.facts() for volume in volumes[:MOST_LISTED])
    if len(volumes) > MOST_LISTED:
        held += f"; and {len(volumes) - MOST_LISTED} more"
    if not wanted:
        raise InputError(f"{name}: there is no series {series} in it. It holds {held}.")
    alike = len({(volume.size, volume.slices) for volume in wanted}) == 1
    if one_series and alike and wanted[0].positions is not None:
        raise InputError(
            f"{name}: {_count(wanted)}; choose one with --frame N, N from 0 to {len(wanted) - 1}, or --series all. It holds "
            f"{wanted[0].facts()} to #{len(wanted)}."
        )
    place = "file" if len({file for volume in volumes for file in volume.files}) == 1 else "folder"
    raise InputError(f"{name}: {len(wanted)} volumes in one {place}; choose with --series UID, or --series all. It holds {held}.")


def _count(volumes: Sequence[DicomVolume]) -> str:
    """Such as "a series of 10 volumes of 15 slices"; volumes: of one series."""
    sizes = {volume.slices for volume in volumes}
    slices = f" of {volumes[0].slices_in_words}" if len(sizes) == 1 else ""
    differ = volumes[0].reading.volumes_differ_in
    told = f" that differ in {listed(differ)}" if differ else ""
    return f"a series of {len(volumes)} volumes{slices}{told}"


def _converted(path: Path, read: Callable[..., Result], *arguments: Any) -> Result:
    """The result of `read` on headers; raises InputError if a value cannot be converted."""
    try:
        return read(*arguments)
    except InputError:
        raise
    except Exception:  # pydicom raises many types, and their text may quote the header
        raise InputError(f"{path.name}: {NO_NUMBERS}.") from None
