"""The DICOM series that Parametric Maps refer to: its identity, and the source frame of each frame of a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from monai_ifim.io.dicom.grid import slice_grid
from monai_ifim.io.dicom.identity import check_one_patient
from monai_ifim.io.dicom.regularity import ROUNDING, tolerance
from monai_ifim.io.dicom.spacing import GUESSED_SIZES
from monai_ifim.io.dicom.volume import Array, DicomVolume
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine
from monai_ifim.io.opened_source import OpenedSource
from monai_ifim.io.parametric_map.codes import FISHER, SOURCE_IMAGE, coded
from monai_ifim.io.parametric_map.identity import check_uids, read_identity, reference_of

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
    or no valid UIDs and texts; InputError if it is of several patients or studies. A resampled volume is allowed: its maps
    state their own grid.
    """
    name = opened.source.path.name
    if not opened.files:
        raise OutputError(
            f"{name}: not DICOM, so there is no patient, study or series that a Parametric Map could belong to: give the DICOM "
            "series, or leave --dicom-pm out."
        )
    volume = opened.volume
    check_one_patient(name, volume.disagreeing)
    grid = slice_grid(volume)
    guessed = volume.reading.pixel_spacing in GUESSED_SIZES
    if grid is None or volume.positions is None or volume.spacing is None or guessed:
        raise OutputError(
            f"{name}: it states no place in space (Image Position, Image Orientation, Pixel Spacing), which a Parametric Map "
            "needs: a secondary capture, a photograph or an X-ray projection has none; leave --dicom-pm out."
        )
    known = {file.path: file.identity for file in opened.files}
    with disable_value_validation():  # its warnings would show the patient's data
        first = read_identity(volume.files[0], known[volume.files[0]])
        headers = (first, *map(reference_of, volume.files[1:], opened.headers[1:]))
        check_uids(name, headers)
    return ReferencedSeries(volume, volume.positions, grid.orientation, volume.spacing, headers)


def refer(dataset: Dataset, series: ReferencedSeries, affine: Affine) -> None:
    """Point `dataset` and each of its frames at the instances that they come from.

    affine: LPS mm of [slice, row, column]. A frame refers to the source frame in its plane; if there is none (another grid),
    it states the derivation without a source, and the object as a whole refers to the series.
    """
    derivation = coded(FISHER)
    dataset.SourceImageSequence = [_reference(header) for header in series.headers]
    if series.volume.frames is not None:
        dataset.SourceImageSequence[0].ReferencedFrameNumber = [frame + 1 for frame in sorted(series.volume.frames)]
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
    most = tolerance(series.volume) + ROUNDING
    for frame, index in enumerate(nearest.tolist()):
        offset = away[frame, index]
        if abs(float(offset @ normal)) > most:
            found.append(None)
        else:
            found.append(_source(series, index, aligned and float(np.linalg.norm(offset)) <= most))
    return found


def _source(series: ReferencedSeries, index: int, preserved: bool) -> Dataset:
    """Item of a Source Image Sequence; preserved: True if the pixels of both coincide, which those of a mosaic never do."""
    mosaic, frames = series.volume.mosaic is not None, series.volume.frames
    one_file = frames is not None or len(series.headers) < len(series.positions)
    item = _reference(series.first if one_file else series.headers[index])
    if one_file and not mosaic:
        item.ReferencedFrameNumber = (index if frames is None else frames[index]) + 1
    item.PurposeOfReferenceCodeSequence = [coded(SOURCE_IMAGE)]
    item.SpatialLocationsPreserved = "YES" if preserved and not mosaic else "NO"
    return item


def _same_plane_grid(series: ReferencedSeries, affine: Affine, shape: tuple[int, int, int]) -> bool:
    """True if the frames have the size, spacing and directions of the source's."""
    columns, rows = series.orientation[:3] * series.spacing[0], series.orientation[3:] * series.spacing[1]
    off = max(float(np.linalg.norm(affine[:3, 2] - columns)), float(np.linalg.norm(affine[:3, 1] - rows)))
    return (shape[2], shape[1]) == series.volume.size and off <= SAME_DIRECTION * min(series.spacing)


def _reference(header: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item
