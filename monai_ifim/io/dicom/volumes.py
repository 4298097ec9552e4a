"""Volumes in a folder of DICOM files: instances grouped by their headers and sorted along their normal.

A series is not a volume: one series UID may hold scouts, echoes or time points, and a folder may hold several series
(PS3.3, C.7.6.2 Image Plane; C.7.6.16 Multi-frame Functional Groups). No pixel is read here. Only numbers, UIDs and codes are
taken over from a header, and only if they have the form of one: any other text may be a name.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydicom.config import disable_value_validation

from monai_ifim.io.dicom.forms import LONGEST_UID, MODALITY_FORM, UID_FORM
from monai_ifim.io.dicom.header import NO_NUMBERS, DicomFile, read_dicom_file
from monai_ifim.io.dicom.identity import Identity, differing
from monai_ifim.io.dicom.mosaic import Mosaic
from monai_ifim.io.dicom.object_kinds import NoImageError
from monai_ifim.io.dicom.volume import SAME_PLACE, Array, DicomVolume
from monai_ifim.io.errors import InputError
from monai_ifim.io.reading import Reading

Result = TypeVar("Result")

MOST_LISTED = 12  # volumes of a folder that an error message lists
# If several slices lie at one place, the first of these attributes that separates them splits them.
TELLING_APART = (
    "EchoTime", "EchoNumbers", "TemporalPositionIdentifier", "DiffusionBValue", "TriggerTime", "AcquisitionNumber",
    "AcquisitionTime", "ContentTime",
)  # fmt: skip


def index_dicom(files: Iterable[Path]) -> list[DicomVolume]:
    """`volumes_of` files that are known to be DICOM, by their paths."""
    return volumes_of(map(read_dicom_file, files))


def volumes_of(files: Iterable[DicomFile]) -> list[DicomVolume]:
    """The volumes among some DICOM files, sorted by key. Objects that are no images (reports, plans) are left out.

    Raises InputError for a file whose header is damaged or holds text instead of numbers, and if no file is an image.
    """
    other: NoImageError | None = None
    with disable_value_validation():  # its warnings would show the patient's data
        groups: dict[Hashable, list[tuple[Path, Any]]] = defaultdict(list)
        identities: dict[Path, Identity] = {}
        volumes: list[DicomVolume] = []
        for file in files:
            if isinstance(file.refusal, NoImageError):
                other = other or file.refusal
                continue
            if file.refusal is not None:
                raise file.refusal
            if file.identity is not None:
                identities[file.path] = file.identity
            if file.mosaic is not None:
                volumes.append(_converted(file.path, _taken_apart, file, file.mosaic))
                continue
            groups[_converted(file.path, _group_of, file.path, file.header)].append((file.path, file.header))
        volumes += [volume for members in groups.values() for volume in _converted(members[0][0], _volumes, members)]
    if other is not None and not volumes:
        raise other
    volumes.sort(key=lambda volume: (volume.series, str(volume.files[0])))
    repeated, seen = Counter(volume.series for volume in volumes), Counter[str]()
    numbered = []
    for volume in volumes:
        seen[volume.series] += 1
        several = repeated[volume.series] > 1
        numbered.append(replace(volume, key=f"{volume.series}#{seen[volume.series]}" if several else volume.series))
    return _compared(numbered, identities)


def _compared(volumes: Iterable[DicomVolume], identities: Mapping[Path, Identity]) -> list[DicomVolume]:
    """The volumes with what disagrees in them, or between those of one series: which of its patients were it of?"""
    several = list(volumes)
    series: dict[str, list[Identity]] = defaultdict(list)
    for volume in several:
        series[volume.series] += [identities[file] for file in volume.files]
    return [
        replace(volume, disagreeing=differing([identities[file] for file in volume.files], series[volume.series]))
        for volume in several
    ]


def choose_volume(name: str, volumes: Sequence[DicomVolume], series: str | None) -> DicomVolume:
    """The only volume, or the one that `series` names by its key; otherwise raises InputError with a list of the volumes."""
    wanted = list(volumes) if series is None else [v for v in volumes if series in (v.key, v.series)]
    if len(wanted) == 1:
        return wanted[0]
    listed = "; ".join(volume.facts() for volume in volumes[:MOST_LISTED])
    if len(volumes) > MOST_LISTED:
        listed += f"; and {len(volumes) - MOST_LISTED} more"
    if not wanted:
        raise InputError(f"{name}: there is no series {series} in it. It holds {listed}.")
    raise InputError(
        f"{name}: {len(wanted)} volumes in one folder; choose with --series UID, or --series all. It holds {listed}."
    )


def undecoded(name: str, volume: DicomVolume) -> InputError:
    """The error for a volume whose pixels cannot be decoded. name: what the message calls the volume."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.misc import is_dicom
    from pydicom.uid import UncompressedTransferSyntaxes

    with disable_value_validation():
        found = [read_file_meta_info(file).get("TransferSyntaxUID") for file in volume.files if is_dicom(file)]
    named = {str(uid.name) if UID_FORM.fullmatch(uid) else "no UID" for uid in found if uid is not None}
    stated = ", ".join(sorted(named)) or "not stated"
    if all(uid in UncompressedTransferSyntaxes for uid in found):
        cure = "convert it to grey values, or copy it again"
        return InputError(f"{name}: its pixels cannot be decoded (a colour palette, or a damaged file): {cure}.")
    return InputError(
        f"{name}: its pixels cannot be decoded (transfer syntax: {stated}): convert the file to an uncompressed transfer syntax "
        "(dcmconv, gdcmconv), or export it again."
    )


def _group_of(path: Path, header: Any) -> Hashable:
    """The key that all slices of a volume share; an image that cannot be stacked is a group by itself."""
    if int(header.get("NumberOfFrames") or 1) > 1 or not _placed(header):
        return ("alone", str(path))
    orientation = tuple(round(float(value), 3) + 0.0 for value in header.ImageOrientationPatient)
    spacing = tuple(round(float(value), 4) for value in header.get("PixelSpacing") or ())
    return (str(header.get("SeriesInstanceUID", "")), int(header.Rows), int(header.Columns), orientation, spacing)


def _converted(path: Path, read: Callable[..., Result], *arguments: Any) -> Result:
    """The result of `read` on headers; raises InputError if a value cannot be converted."""
    try:
        return read(*arguments)
    except InputError:
        raise
    except Exception:  # pydicom raises many types, and their text may quote the header
        raise InputError(f"{path.name}: {NO_NUMBERS}.") from None


def _placed(header: Any) -> bool:
    return len(header.get("ImagePositionPatient") or ()) == 3 and len(header.get("ImageOrientationPatient") or ()) == 6


def _volumes(members: list[tuple[Path, Any]]) -> list[DicomVolume]:
    if len(members) == 1:
        return [_volume(members)]
    for tag in TELLING_APART:
        if not _overlapping(members):
            break
        parts: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
        for member in members:
            parts[str(member[1].get(tag, ""))].append(member)
        if len(parts) > 1 and len({len(part) for part in parts.values()}) == 1 and not any(map(_overlapping, parts.values())):
            return [_volume(part) for part in parts.values()]
    return [_volume(members)]


def _overlapping(members: Sequence[tuple[Path, Any]]) -> bool:
    """True if two slices lie at one place."""
    heights = np.sort(_heights(members))
    return len(heights) > 1 and float(np.diff(heights).min()) < SAME_PLACE


def _heights(members: Sequence[tuple[Path, Any]]) -> Array:
    """Positions along the normal, in mm."""
    orientation = np.array(members[0][1].ImageOrientationPatient, dtype=np.float64)
    positions = np.array([header.ImagePositionPatient for _, header in members], dtype=np.float64)
    heights: Array = positions @ np.cross(orientation[:3], orientation[3:])
    return heights


def _volume(members: list[tuple[Path, Any]]) -> DicomVolume:
    if _placed(members[0][1]):
        order = np.argsort(_heights(members), kind="stable")
        members = [members[i] for i in order]
    path, header = members[0]
    multiframe = int(header.get("NumberOfFrames") or 1) > 1
    positions, orientation, spacing = _frames(header) if multiframe else _planes(members)
    return DicomVolume(
        key=_series_name(path, header),
        files=tuple(path for path, _ in members),
        modality=_code(header.get("Modality")),
        size=(int(header.Columns), int(header.Rows)),
        slices=max(len(members), int(header.get("NumberOfFrames") or 1)),
        positions=positions,
        orientation=orientation,
        spacing=spacing,
        rescale=_rescale(header) if multiframe else None,
    )


def _taken_apart(file: DicomFile, mosaic: Mosaic) -> DicomVolume:
    """The volume in a mosaic, or, if it cannot be taken apart, its picture, which `regularity.check_volume` refuses."""
    header = file.header
    count = int(header.get("NumberOfFrames") or 1) if mosaic.positions is None else len(mosaic.positions)
    return DicomVolume(
        key=_series_name(file.path, header),
        files=(file.path,),
        modality=_code(header.get("Modality")),
        size=(int(header.Columns) // mosaic.across, int(header.Rows) // mosaic.down),
        slices=count,
        positions=mosaic.positions,
        orientation=mosaic.orientation,
        spacing=mosaic.spacing,
        reading=Reading(tiles=None if mosaic.fault else count, slice_step=mosaic.slice_step),
        mosaic=mosaic,
    )


def _series_name(path: Path, header: Any) -> str:
    """The key of a series: its UID, or a digest if that has not the form of a UID and may be any text."""
    uid = str(header.get("SeriesInstanceUID") or "").strip(" \0")
    if not uid:
        return path.name
    if len(uid) <= LONGEST_UID and UID_FORM.fullmatch(uid):
        return uid
    return f"series-{hashlib.sha256(uid.encode('utf-8', 'backslashreplace')).hexdigest()[:8]}"


def _code(value: Any) -> str:
    """The text if it has the form of a code, else an empty text."""
    text = str(value or "")
    return text if MODALITY_FORM.fullmatch(text) else ""


Places = tuple[Array | None, Array | None, tuple[float, float] | None]


def _planes(members: list[tuple[Path, Any]]) -> Places:
    header = members[0][1]
    spacing = _pair(header.get("PixelSpacing"))
    if not _placed(header):
        return None, None, spacing
    positions = np.array([member.ImagePositionPatient for _, member in members], dtype=np.float64)
    return positions, np.array(header.ImageOrientationPatient, dtype=np.float64), spacing


def _frames(header: Any) -> Places:
    """Positions, orientation and spacing of the frames of an enhanced multi-frame object, in the order of the frames."""
    positions = _functional(header, "PlanePositionSequence", "ImagePositionPatient")
    orientations = _functional(header, "PlaneOrientationSequence", "ImageOrientationPatient")
    spacings = _functional(header, "PixelMeasuresSequence", "PixelSpacing")
    spacing = _pair(spacings[0]) if spacings else None
    if not positions or any(stated is None for stated in (*positions, *orientations, *spacings)):
        return None, None, spacing
    directions = np.array(orientations, dtype=np.float64)
    if _spread(directions) > SAME_PLACE or _spread(np.array(spacings, dtype=np.float64)) > SAME_PLACE:
        return None, None, spacing  # not a volume: `regularity.check_volume` refuses it
    return np.array(positions, dtype=np.float64), directions[0], spacing


def _rescale(header: Any) -> Array | None:
    """Slope and intercept of each frame of a multi-frame object (PS3.3, C.7.6.16.2.9), None if all share one pair."""
    slopes = _functional(header, "PixelValueTransformationSequence", "RescaleSlope")
    intercepts = _functional(header, "PixelValueTransformationSequence", "RescaleIntercept")
    pairs = [(1.0 if a is None else float(a), float(b or 0.0)) for a, b in zip(slopes, intercepts, strict=True)]
    return np.array(pairs) if len(set(pairs)) > 1 else None


def _functional(header: Any, sequence: str, name: str) -> list[Any]:
    """An attribute of each frame of a multi-frame object: the frame's own, else the shared one, else None."""
    shared = next(iter(header.get("SharedFunctionalGroupsSequence") or ()), None)
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    common = None if shared is None else _first(shared, sequence, name)
    own = [_first(frame, sequence, name) for frame in frames]
    return [common if value is None else value for value in own]


def _first(group: Any, sequence: str, name: str) -> Any:
    item = next(iter(group.get(sequence) or ()), None)
    return None if item is None else item.get(name)


def _spread(stated: Array) -> float:
    """Largest difference from the first entry."""
    return float(np.abs(stated - stated[0]).max())


def _pair(spacing: Any) -> tuple[float, float] | None:
    """Spacing between columns and between rows; DICOM states rows first (PS3.3, 10.7.1.3)."""
    return None if not spacing or len(spacing) != 2 else (float(spacing[1]), float(spacing[0]))
