"""DICOM Parametric Maps (PS3.3, A.75): the maps of a case as float images that a PACS keeps beside their source series.

One file per map and channel, and one new series per case. The pixels are the float32 numbers of the NIfTI files.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from monai_ifim.core.settings import selection
from monai_ifim.display.saturation import is_saturated
from monai_ifim.io import atomic
from monai_ifim.io.case_maps import CaseMaps
from monai_ifim.io.dicom.object_kinds import MANUFACTURER, MODEL
from monai_ifim.io.errors import OutputError
from monai_ifim.io.geometry import Affine, check_writable, dicom_frames
from monai_ifim.io.maps import MapContent
from monai_ifim.io.nifti import volume_shape
from monai_ifim.io.parametric_map.codes import (
    SCHEME,
    content_description,
    content_label,
    derivation_description,
    real_world_mapping,
    serial_number,
    series_description,
)
from monai_ifim.io.parametric_map.identity import EMPTY_IF_UNKNOWN, give_identity
from monai_ifim.io.parametric_map.source import ReferencedSeries, refer
from monai_ifim.version import __version__

LARGEST_OBJECT = 2**32 - 2  # bytes, of one DICOM element
LARGEST_SERIES_NUMBER = 2**31 - 1
OWN_SERIES_NUMBER = 9001  # if the source has none
OF_THE_WHOLE_BUNDLE = ("bundle_sha256", "files")  # a file that moves no pixel makes no other series
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"  # any single-frame class: highdicom only needs its grid

Frames = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Map:
    """One channel of one map: values [*spatial] as stored; the true ones are `scale` times these."""

    stem: str
    content: MapContent
    values: Frames
    window: tuple[float, float]
    scale: float

    @property
    def label(self) -> str:
        return content_label(self.content)


def write_parametric_maps(
    folder: Path, series: ReferencedSeries, maps: CaseMaps, contents: Sequence[str], sidecar: Mapping[str, Any]
) -> dict[str, str]:
    """Write CASE_ifim_high.dcm and so on for each map of `contents`, each whole or absent; returns the hex SHA-256 by name.

    series: `referenced_series` of the input; sidecar: the case's, which names the files, their windows, units and settings.
    The same maps by the same settings have the same UIDs, so that a PACS stores them once even if they are sent twice.
    Raises OutputError, GeometryError.
    """
    with disable_value_validation():  # its warnings would show the patient's data
        check_writable(maps.affine)
        listed = _listed(maps, contents, sidecar)
        uid = _series_uid(series, maps.affine, listed, sidecar)
        written = {}
        for number, each in enumerate(listed, start=1):
            dataset = _parametric_map(each, maps.affine, series, sidecar, uid, number)
            buffer = io.BytesIO()
            dataset.save_as(buffer, enforce_file_format=True)
            name = f"{each.stem}.dcm"
            written[name] = atomic.write_bytes(folder / name, buffer.getvalue())
    return written


def _listed(maps: CaseMaps, contents: Sequence[str], sidecar: Mapping[str, Any]) -> list[_Map]:
    """The maps to write, in the order of the sidecar; raises OutputError for one that DICOM cannot store."""
    listed = []
    for file in sidecar["files"]:
        content = MapContent.of(file)
        if content.saved_as not in contents:
            continue
        values = np.ascontiguousarray(maps.values(content), dtype=np.float32)
        if not np.isfinite(values).all():
            raise OutputError(f"{file['file']}: the map holds NaN or infinite values and is not written as DICOM.")
        if values.nbytes > LARGEST_OBJECT:
            raise OutputError(f"{file['file']}: larger than the 4 GiB that one DICOM object holds; leave --dicom-pm out.")
        stem = file["file"].removesuffix(".nii.gz")
        listed.append(_Map(stem, content, values, tuple(file["window"]), float(file["scale"])))
    return listed


def _series_uid(series: ReferencedSeries, affine: Affine, listed: Sequence[_Map], sidecar: Mapping[str, Any]) -> str:
    """A UID derived from the maps, their source instances and the settings."""
    digest = hashlib.blake2b()
    instances = sorted(str(header.SOPInstanceUID) for header in series.headers)
    settings = {name: sidecar.get(name) for name in ("generator", "space", "units", "method", "metric")}
    settings["model"] = {name: value for name, value in sidecar["model"].items() if name not in OF_THE_WHOLE_BUNDLE}
    settings["selection"] = selection(sidecar["settings"])
    digest.update(json.dumps([instances, settings, affine.tolist()], sort_keys=True).encode())
    for each in listed:
        digest.update(f"{each.label} {each.values.shape} {each.scale!r} {each.window!r}".encode())
        digest.update(each.values.data)
    return str(generate_uid(entropy_srcs=[digest.hexdigest()]))


def _parametric_map(
    each: _Map, affine: Affine, series: ReferencedSeries, sidecar: Mapping[str, Any], series_uid: str, number: int
) -> Dataset:
    import highdicom as hd
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.pm import ParametricMap

    frames, matrix = dicom_frames(each.values.reshape(volume_shape(each.values.shape)), affine, series.orientation)
    frames = np.ascontiguousarray(frames)
    volume = hd.Volume(frames, matrix, "PATIENT", frame_of_reference_uid=str(series.first.FrameOfReferenceUID))
    low, high = each.window
    window = hd.VOILUTTransformation((low + high) / 2, high - low, voi_lut_function="LINEAR_EXACT")  # may be narrower than 1
    values = (float(frames.min()), float(frames.max()))
    dataset = ParametricMap(
        source_images=[_grid_header(series, matrix, frames.shape)],
        pixel_array=volume,
        series_instance_uid=series_uid,
        series_number=_series_number(series),
        sop_instance_uid=_uid(series_uid, each.label),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number=serial_number(sidecar),
        contains_recognizable_visual_features=each.content.kind in ("high", "low"),  # unless the source states it
        real_world_value_mappings=[real_world_mapping(each.label, each.content.kind, sidecar, values, each.scale)],
        voi_lut_transformations=[window],
        content_label=each.label,
        content_description=content_description(each.content, is_saturated(sidecar)),
        series_description=series_description(sidecar),
        coding_schemes=[CodingSchemeIdentificationItem(SCHEME, "monai_ifim maps", responsible_organization=MANUFACTURER)],
    )
    dataset.DerivationDescription = derivation_description(sidecar)
    _in_order(dataset, frames, _uid(series_uid, each.label, "dimensions"))
    give_identity(dataset, series.first)
    refer(dataset, series, matrix)
    return dataset


def _grid_header(series: ReferencedSeries, matrix: Affine, shape: tuple[int, ...]) -> Dataset:
    """A source header with the map's own grid and without any name, for highdicom.

    highdicom takes geometry and identity from the source: it would replace the map's grid by a nearly equal one of the
    source, and its warnings quote unusual names.
    """
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CT_IMAGE, series.first.SOPInstanceUID
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(header, keyword, series.first.get(keyword))
    for keyword in EMPTY_IF_UNKNOWN:
        setattr(header, keyword, None)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    columns, rows = matrix[:3, 2] / spacing[2], matrix[:3, 1] / spacing[1]
    header.Rows, header.Columns = shape[1], shape[2]
    header.ImagePositionPatient, header.ImageOrientationPatient = list(matrix[:3, 3]), [*columns, *rows]
    header.PixelSpacing, header.SliceThickness = [spacing[1], spacing[2]], spacing[0]
    return header


def _in_order(dataset: Dataset, frames: Frames, uid: str) -> None:
    """Sort the frames by their position along the normal; highdicom writes them in reverse, and some programs rely on the order.

    uid: of the dimensions, which highdicom would draw at random.
    """
    groups = list(dataset.PerFrameFunctionalGroupsSequence)[::-1]
    for place, group in enumerate(groups, start=1):
        group.FrameContentSequence[0].DimensionIndexValues = [place]
    dataset.PerFrameFunctionalGroupsSequence = groups
    dataset.FloatPixelData = frames.tobytes()
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid


def _series_number(series: ReferencedSeries) -> int:
    """A hundred times the source's plus one, as scanners number derived series."""
    number = int(series.first.get("SeriesNumber") or 0) * 100 + 1
    return number if 1 < number <= LARGEST_SERIES_NUMBER else OWN_SERIES_NUMBER


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=list(parts)))
