"""The DICOM series that Parametric Maps belong to: may they, whose are they, and which of its frames does each frame show?"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.config import disable_value_validation
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from monai_ifim.io.dicom.regularity import SPACING_TOLERANCE
from monai_ifim.io.dicom.volumes import Array, DicomVolume, choose_volume, index_dicom
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine
from monai_ifim.io.parametric_map.codes import FISHER, SOURCE_IMAGE, coded
from monai_ifim.io.source import Source, dicom_files

# All that goes over from the source: what files an object under its patient and study, and what the standard demands of it.
IDENTITY = [
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientBreedDescription", "PatientBreedCodeSequence",
    "BreedRegistrationSequence", "ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "AccessionNumber", "IssuerOfAccessionNumberSequence", "ReferringPhysicianName",
    "FrameOfReferenceUID", "PositionReferenceIndicator", "Laterality", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod", "BurnedInAnnotation", "RecognizableVisualFeatures",
]  # fmt: skip
# Of the items of sequences among these, all that the standard has there: issuers (PS3.3, 10.14), codes (8), registrations.
ITEM_ELEMENTS = {
    "LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType", "CodeValue", "LongCodeValue", "URNCodeValue",
    "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning", "BreedRegistrationNumber", "BreedRegistryCodeSequence",
}  # fmt: skip
EMPTY_IF_UNKNOWN = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "ReferringPhysicianName", "PositionReferenceIndicator", "Laterality",
)  # fmt: skip
REFERENCE = ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID", "StudyInstanceUID"]
SAME_DIRECTION = 1e-4  # difference of direction cosines, and of voxel sizes as a share, that is none


@dataclass(frozen=True, eq=False)
class ReferencedSeries:
    """A volume with a place in space. headers: of its files, in their order; the first holds whose it is."""

    volume: DicomVolume
    positions: Array
    orientation: Array
    spacing: tuple[float, float]
    headers: tuple[Dataset, ...]

    @property
    def first(self) -> Dataset:
        """The header of the first file."""
        return self.headers[0]


def referenced_series(source: Source) -> ReferencedSeries:
    """The series that maps of this source refer to; raises OutputError, with the cure, where there can be no Parametric Map."""
    name = source.path.name
    files = dicom_files(source.path) if source.path.exists() else []
    if not files:
        raise OutputError(
            f"{name}: not DICOM, so there is no patient, study or series that a Parametric Map could belong to: give the DICOM "
            "series, or leave --dicom-pm out."
        )
    volume = choose_volume(name, index_dicom(files), source.series)
    if volume.positions is None or volume.orientation is None or volume.spacing is None:
        raise OutputError(
            f"{name}: it states no place in space (Image Position, Image Orientation, Pixel Spacing), which a Parametric Map "
            "needs: a secondary capture, a photograph or an X-ray projection has none; leave --dicom-pm out."
        )
    headers = tuple(_header(file, identity=i == 0) for i, file in enumerate(volume.files))
    frames, studies = ({str(header.get(tag) or "") for header in headers} for tag in ("FrameOfReferenceUID", "StudyInstanceUID"))
    if len(frames) > 1 or len(studies) > 1 or "" in frames | studies:
        raise OutputError(
            f"{name}: its files do not all name one Frame of Reference UID and one Study Instance UID, so a Parametric Map "
            "cannot be tied to them: export the series anew, or leave --dicom-pm out."
        )
    return ReferencedSeries(volume, volume.positions, volume.orientation, volume.spacing, headers)


def give_identity(dataset: Dataset, series: ReferencedSeries) -> None:
    """Make `dataset` one of the patient, study and frame of reference of the series. Elements are taken over as they are,
    whatever a strict program would say of their values: a PACS matches them letter by letter. Of sequences, what else a program
    has put into their items stays behind."""
    for keyword in IDENTITY:
        if series.first.get(keyword) not in (None, ""):
            dataset[keyword] = copy.deepcopy(series.first[keyword])
            _prune(dataset[keyword])
        elif keyword in EMPTY_IF_UNKNOWN:
            setattr(dataset, keyword, None)


def _prune(element: DataElement) -> None:
    """Leave in the items of a sequence what is in ITEM_ELEMENTS."""
    for item in element.value if element.VR == "SQ" else ():
        for part in list(item):
            if part.keyword in ITEM_ELEMENTS:
                _prune(part)
            else:
                del item[part.tag]


def refer(dataset: Dataset, series: ReferencedSeries, affine: Affine) -> None:
    """Point `dataset` and each of its frames at the instances that they come from.

    affine: LPS mm of [slice, row, column]. A frame names the source frame that lies in its plane; where none does (another
    grid), it states the derivation and no source, and the whole series stands above.
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
    """For every frame, the source frame in its plane; shape: slices, rows, columns."""
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
    """Item of a Source Image Sequence; preserved: whether pixel lies on pixel."""
    multiframe = len(series.headers) < len(series.positions)
    item = _reference(series.first if multiframe else series.headers[index])
    if multiframe:
        item.ReferencedFrameNumber = index + 1
    item.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE)]
    item.SpatialLocationsPreserved = "YES" if preserved else "NO"
    return item


def _same_plane_grid(series: ReferencedSeries, affine: Affine, shape: tuple[int, int, int]) -> bool:
    """Whether the frames have the size, the spacing and the directions of the source's."""
    columns, rows = series.orientation[:3] * series.spacing[0], series.orientation[3:] * series.spacing[1]
    off = max(float(np.linalg.norm(affine[:3, 2] - columns)), float(np.linalg.norm(affine[:3, 1] - rows)))
    return (shape[2], shape[1]) == series.volume.size and off <= SAME_DIRECTION * min(series.spacing)


def _header(file: Path, identity: bool) -> Dataset:
    """Every element of it read to its value; raises OutputError, which quotes none, where one cannot be."""
    try:
        with disable_value_validation():  # its warnings would show the patient's data
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[*REFERENCE, *(IDENTITY if identity else [])])
            list(header)
    except Exception:  # pydicom raises much, and its text may be what the header says
        raise OutputError(
            f"{file.name}: an element of its DICOM header that a Parametric Map takes over cannot be read: export the image "
            "anew, or leave --dicom-pm out."
        ) from None
    return header


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
