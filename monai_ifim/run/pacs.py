"""Pulls the series of a study from a DICOMweb server and stores the maps of its cases in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pydicom
from pydicom.config import disable_value_validation
from pydicom.uid import ParametricMapStorage

from monai_ifim.io import InputError, OutputError, atomic
from monai_ifim.io.case_files import PULLED
from monai_ifim.io.containment import real_folder
from monai_ifim.io.dicom.deflated import readable_head
from monai_ifim.io.dicomweb.client import DicomWeb, RemoteSeries, ServerError, UnreachableError, checked_uid
from monai_ifim.io.source import ValueChoice
from monai_ifim.run.audit_trail import UNRECORDED, AuditTrail
from monai_ifim.run.cases import EVERY_SERIES, Case, find_cases
from monai_ifim.run.table import CaseRow

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@dataclass(frozen=True)
class StoredMap:
    """Outcome of storing one map: "stored", "kept" (the study had it already) or "failed" with its reason."""

    file: str
    status: Literal["stored", "kept", "failed"]
    reason: str = ""


def choose_series(server: DicomWeb, study: str, wanted: str | None) -> list[RemoteSeries]:
    """The only series of the study that holds images, the one that `wanted` names by its UID, or, with "all", each.

    wanted may name a volume of a series too, UID#2 (`dicom_volumes`). Raises InputError, with all there is, where that is no
    choice; ServerError.
    """
    there = server.series_of(checked_uid(study))
    if not there:
        raise InputError(f"{server.name}: no images in a study {study}, or this user may not see it: check --study.")
    chosen = there if wanted in (None, EVERY_SERIES) else [one for one in there if one.uid == str(wanted).partition("#")[0]]
    listed = "; ".join(one.facts() for one in there)
    if not chosen:
        raise InputError(f"{server.name}: the study has no series {wanted} with images in it. It holds {listed}.")
    if wanted is None and len(chosen) > 1:
        raise InputError(
            f"{server.name}: {len(chosen)} series in the study; choose with --series UID, or --series all. It holds {listed}."
        )
    return chosen


def pull_series(
    server: DicomWeb,
    study: str,
    chosen: Sequence[RemoteSeries],
    output: Path,
    report: Callable[[], None] = lambda: None,
    trail: AuditTrail = UNRECORDED,
) -> list[Path]:
    """Fetch the images into OUT/dicom/STUDY/SERIES, one file an image; returns the folders of the series.

    Whole files of an earlier pull are not fetched again, and files of images that the server no longer lists are removed.
    report is called once an image. trail: records each series before it is pulled and afterwards.
    Raises ServerError, OutputError.
    """
    folders = []
    for series in chosen:
        with trail.step("pull", series=series.uid, images=len(series.instances)) as found:
            found["fetched"] = 0
            for fetched in _pulled(server, study, series, output):
                found["fetched"] += fetched
                report()
        folders.append(_folder(output, study, series))
    return folders


def _folder(output: Path, study: str, series: RemoteSeries) -> Path:
    return output / PULLED / checked_uid(study) / checked_uid(series.uid)


def _pulled(server: DicomWeb, study: str, series: RemoteSeries, output: Path) -> Iterator[bool]:
    """Pull the images of a series; for each True if it was fetched, False if it lay there."""
    folder = _folder(output, study, series)
    images = {folder / f"{checked_uid(instance)}.dcm": instance for instance in series.instances}
    try:
        _prepare(output, folder, images)
        for path, instance in images.items():
            whole = _is_whole(path, (study, series.uid, instance))
            if not whole:
                atomic.write_bytes(path, server.retrieve(study, series.uid, instance), root=output)
            yield not whole
    except OSError as error:
        raise OutputError(f"{output}: the study cannot be written there ({error.strerror}).") from error


def cases_of(
    folders: Sequence[Path],
    chosen: Sequence[RemoteSeries],
    wanted: str | None = None,
    fix_geometry: bool = False,
    choice: ValueChoice | None = None,
) -> list[Case]:
    """The cases that lie in the pulled folders, named by modality and number of their series; wanted: as `choose_series`."""
    labels = {series.uid: series.label for series in chosen}
    cases = find_cases(folders, series=wanted, fix_geometry=fix_geometry, choice=choice)
    return [
        replace(case, name=case.source.name.replace(case.source.path.name, labels[case.source.path.name], 1), earlier=())
        for case in cases
    ]


def store_maps(
    server: DicomWeb,
    study: str,
    output: Path,
    rows: Iterable[CaseRow],
    report: Callable[[StoredMap], None] = lambda _: None,
    trail: AuditTrail = UNRECORDED,
) -> list[StoredMap]:
    """Store the Parametric Maps of all cases that did not fail; a refused map is a result, and the others go on.

    trail: records each map before it is stored and afterwards.
    Raises UnreachableError where the server is away: the maps lie in OUT, and the next run sends them.
    """
    results = []
    for row in rows:
        if row.status == "failed":
            continue
        for path in sorted((output / row.case).glob(f"{row.case}_ifim_*.dcm")):
            results.append(_store(server, study, path, trail))
            report(results[-1])
    return results


def _prepare(output: Path, folder: Path, images: Iterable[Path]) -> None:
    """Make the folder of a series, readable by its owner only; remove files that the server no longer lists and partial files."""
    with real_folder(output / PULLED, root=output, make=True) as pulled:
        os.fchmod(pulled, 0o700)
    with real_folder(folder, root=output, make=True):
        atomic.remove_partial(folder, root=output)
    listed = {path.name for path in images}
    atomic.remove_files(folder, lambda name: name.endswith(".dcm") and name not in listed, root=output)


def _is_whole(path: Path, uids: tuple[str, str, str]) -> bool:
    """True if an earlier pull wrote this image of this study and series; files are written atomically."""
    if not path.is_file() or path.is_symlink():
        return False
    try:
        with disable_value_validation(), path.open("rb") as file:  # its warnings would show the patient's data
            header = pydicom.dcmread(readable_head(file), stop_before_pixels=True, specific_tags=[*UIDS])
        return uids == tuple(header.get(keyword) for keyword in UIDS)
    except Exception:  # a damaged file is fetched again
        return False


def _store(server: DicomWeb, study: str, path: Path, trail: AuditTrail) -> StoredMap:
    try:
        content = _read_map(path, study)
    except OutputError as error:
        trail.record("store", "failed", reason=str(error))
        return StoredMap(path.name, "failed", str(error))
    series, instance = str(content.SeriesInstanceUID), str(content.SOPInstanceUID)
    with trail.step("store", map_series=series, map_instance=instance) as found:
        stored = _sent(server, study, content, path.name)
        found["outcome"] = stored.status
        if stored.reason:
            found["reason"] = stored.reason
    return stored


def _sent(server: DicomWeb, study: str, content: pydicom.Dataset, name: str) -> StoredMap:
    try:
        if server.holds(study, str(content.SeriesInstanceUID), str(content.SOPInstanceUID)):
            return StoredMap(name, "kept")
        server.store(study, content)
    except UnreachableError:
        raise
    except ServerError as error:
        return StoredMap(name, "failed", str(error))
    return StoredMap(name, "stored")


def _read_map(path: Path, study: str) -> pydicom.Dataset:
    """Read a map and check that it belongs to this study, so that it never reaches another patient's."""
    try:
        content = pydicom.dcmread(path)
        belongs = content.StudyInstanceUID == study and content.SOPClassUID == ParametricMapStorage
        checked_uid(content.SeriesInstanceUID)
        checked_uid(content.SOPInstanceUID)
    except Exception as error:  # whatever damage to a file makes its reader raise
        raise OutputError(f"{path.name}: cannot be read ({type(error).__name__}): run again with --overwrite.") from None
    if not belongs:
        raise OutputError(f"{path.name}: is not a map of this study: run again with --overwrite.")
    return content
