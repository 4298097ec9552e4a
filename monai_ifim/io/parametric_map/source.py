"""The DICOM series that Parametric Maps refer to: its identity, and the source frame of each frame of a map."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from monai_ifim.io.dicom.identity import check_one_patient
from monai_ifim.io.dicom.regularity import SPACING_TOLERANCE
from monai_ifim.io.dicom.volumes import Array, DicomVolume
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine
from monai_ifim.io.opened_source import OpenedSource
from monai_ifim.io.parametric_map.codes import FISHER, SOURCE_IMAGE, coded

# Attributes copied from the source: those that file an object under its patient and study, and those that the standard demands.
IDENTITY = [
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence",
    "BreedRegistrationSequence", "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "Laterality", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "BurnedInAnnotation", "RecognizableVisualFeatures",
]  # fmt: skip
# Attributes kept in items of sequences: those of the standard for issuers (PS3.3, 10.14), codes (8) and registrations.
ITEM_ELEMENTS = {
    "LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType", "CodeValue", "LongCodeValue", "URNCodeValue",
    "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "BreedRegistrationNumber", "BreedRegistryCodeSequence",
}  # fmt: skip
EMPTY_IF_UNKNOWN = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "PositionReferenceIndicator", "Laterality",
)  # fmt: skip
REFERENCE = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID", "StudyInstanceUID"]
SAME_DIRECTION = 1e-4  # below it, two direction cosines, or relative voxel sizes, are equal


@dataclass(frozen=True, eq=False)
class ReferencedSeries:
    """A volume with a position in space. headers: of its files, in their order; the first one holds the patient's identity."""

    volume: DicomVolume
    positions: Array
    orientation: Array
    spacing: tuple[float, float]
    headers: tuple[Dataset, ...]

    @property
    def first(self) -> Dataset:
        """The header of the first file."""
        return self.headers[0]


def referenced_series(opened: OpenedSource) -> ReferencedSeries:
    """The series that maps of an input refer to; opens its first file once more, for the patient's identity.

    Raises OutputError, with the cure, if no Parametric Map can refer to the input: it is not DICOM, has no position in space,
    or belongs to several studies. A resampled volume is allowed: its maps state their own grid.
    """
    name = opened.source.path.name
    if not opened.files:
        raise OutputError(
            f"{name}: not DICOM, so there is no patient, study or series that a Parametric Map could belong to: give the DICOM "
            "series, or leave --dicom-pm out."
        )
    volume = opened.volume
    check_one_patient(name, volume.disagreeing)
    if volume.positions is None or volume.orientation is None or volume.spacing is None:
        raise OutputError(
            f"{name}: it states no place in space (Image Position, Image Orientation, Pixel Spacing), which a Parametric Map "
            "needs: a secondary capture, a photograph or an X-ray projection has none; leave --dicom-pm out."
        )
    with disable_value_validation():  # its warnings would show the patient's data
        headers = (_identity(volume.files[0]), *map(_reference_of, volume.files[1:], opened.headers[1:]))
        frames, studies = ({str(one.get(tag) or "") for one in headers} for tag in ("FrameOfReferenceUID", "StudyInstanceUID"))
    if len(frames) > 1 or len(studies) > 1 or "" in frames | studies:
        raise OutputError(
            f"{name}: its files do not all name one Frame of Reference UID and one Study Instance UID, so a Parametric Map "
            "cannot be tied to them: export the series again, or leave --dicom-pm out."
        )
    return ReferencedSeries(volume, volume.positions, volume.orientation, volume.spacing, headers)


def give_identity(dataset: Dataset, series: ReferencedSeries) -> None:
    """Copy patient, study and frame of reference of the series into `dataset`.

    Values are copied unchanged, even invalid ones, because a PACS compares them letter by letter. In items of sequences only
    ITEM_ELEMENTS are kept.
    """
    for keyword in IDENTITY:
        if series.first.get(keyword) not in (None, ""):
            dataset[keyword] = copy.deepcopy(series.first[keyword])
            _prune(dataset[keyword])
        elif keyword in EMPTY_IF_UNKNOWN:
            setattr(dataset, keyword, None)


def _prune(element: DataElement) -> None:
    """Remove all but ITEM_ELEMENTS from the items of a sequence."""
    for item in element.value if element.VR == "SQ" else ():
        for part in list(item):
            if part.keyword in ITEM_ELEMENTS:
                _prune(part)
            else:
                del item[part.tag]


def refer(dataset: Dataset, series: ReferencedSeries, affine: Affine) -> None:
    """Point `dataset` and each of its frames at the instances that they come from.

    affine: LPS mm of [slice, row, column]. A frame refers to the source frame in its plane; if there is none (another grid),
    it states the derivation without a source, and the object as a whole refers to the series.
    """
    derivation = coded(FISHER)
    dataset.SourceImageSequence = [_reference(header) for header in series.headers]
    whole = Dataset()
    whole.SeriesInstanceUID = series.first.SeriesInstanceUID
    whole.ReferencedInstanceSequence = [_reference(header) for header in series.headers]
    dataset.ReferencedSeriesSequence = [whole]
    dataset.DerivationCodeSequence = [derivation]
    frames = list(dataset.PerFrameFunctionalGroupsSequence)
    sources = _sources(series, affine, (len(frames), int(dataset.Rows), int(dataset.Columns)))
    for frame, source in zip(frames, sources, strict=True):
        item = Dataset()
        item.DerivationCodeSequence = [derivation]
        item.SourceImageSequence = [] if source is None else [source]
        frame.DerivationImageSequence = [item]


def _sources(series: ReferencedSeries, affine: Affine, shape: tuple[int, int, int]) -> list[Dataset | None]:
    """The source frame in the plane of each frame, None if there is none; shape: slices, rows, columns."""
    normal = np.cross(series.orientation[:3], series.orientation[3:])
    rows_cross_columns = np.cross(affine[:3, 2], affine[:3, 1])
    slant = np.cross(normal, rows_cross_columns / np.linalg.norm(rows_cross_columns))
    if float(np.linalg.norm(slant)) > SAME_DIRECTION:
        return [None] * shape[0]
    positions = affine[:3, 3] + np.arange(shape[0])[:, None] * affine[:3, 0]
    away = positions[:, None] - series.positions
    nearest = np.abs(away @ normal).argmin(axis=1)
    aligned = _same_plane_grid(series, affine, shape)
    found: list[Dataset | None] = []
    for frame, index in enumerate(nearest.tolist()):
        offset = away[frame, index]
        if abs(float(offset @ normal)) > SPACING_TOLERANCE:
            found.append(None)
        else:
            found.append(_source(series, index, aligned and float(np.linalg.norm(offset)) <= SPACING_TOLERANCE))
    return found


def _source(series: ReferencedSeries, index: int, preserved: bool) -> Dataset:
    """Item of a Source Image Sequence; preserved: True if the pixels of both coincide."""
    multiframe = len(series.headers) < len(series.positions)
    item = _reference(series.first if multiframe else series.headers[index])
    if multiframe:
        item.ReferencedFrameNumber = index + 1
    item.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE)]
    item.SpatialLocationsPreserved = "YES" if preserved else "NO"
    return item


def _same_plane_grid(series: ReferencedSeries, affine: Affine, shape: tuple[int, int, int]) -> bool:
    """True if the frames have the size, spacing and directions of the source's."""
    columns, rows = series.orientation[:3] * series.spacing[0], series.orientation[3:] * series.spacing[1]
    off = max(float(np.linalg.norm(affine[:3, 2] - columns)), float(np.linalg.norm(affine[:3, 1] - rows)))
    return (shape[2], shape[1]) == series.volume.size and off <= SAME_DIRECTION * min(series.spacing)


def _identity(file: Path) -> Dataset:
    """REFERENCE and IDENTITY of a file, each element read to its value; raises OutputError, which quotes none."""
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*REFERENCE, *IDENTITY])
        list(header)
    except Exception:  # pydicom raises many types, and their text may quote the header
        raise _unreadable(file) from None
    return header


def _reference_of(file: Path, header: Dataset) -> Dataset:
    """REFERENCE of a header that was read before; raises OutputError if a value cannot be read."""
    kept = Dataset()
    try:
        for keyword in REFERENCE:
            if keyword in header:
                kept[keyword] = header[keyword]
    except Exception:
        raise _unreadable(file) from None
    return kept


def _unreadable(file: Path) -> OutputError:
    return OutputError(
        f"{file.name}: an element of its DICOM header that a Parametric Map takes over cannot be read: export the image again, "
        "or leave --dicom-pm out."
    )


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
