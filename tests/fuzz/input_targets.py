"""Fuzz targets before pixels are read: lists of cases, file names, DICOM and NIfTI headers."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from fuzz.mutations import BETWEEN, mutate_dicom, mutate_json, mutate_text
from fuzz.oracle import Target, check_names, refusing
from monai_ifim.io import OpenedSource, Source
from monai_ifim.io.dicom.header import is_no_image, read_dicom_file
from monai_ifim.io.dicom.regularity import check_volume
from monai_ifim.io.dicom.volume import DicomVolume
from monai_ifim.io.dicom.volumes import index_dicom
from monai_ifim.io.parametric_map.source import referenced_series
from monai_ifim.run.cases import find_cases
from synthetic_mosaics import Tiles, siemens, united_imaging

MOST_FILES = 6
WAYS: tuple[Mapping[str, Any], ...] = ({}, {"series": "all"}, {"frame": 0}, {"series": "1.2.4"})  # of looking for cases


def list_any_cases(content: bytes, folder: Path) -> None:
    """A datalist: every case has a name that is one folder's, and no two have the same."""
    path = folder / "list.json"
    path.write_bytes(content)
    (folder / "below").mkdir()
    for name in ("a.nii.gz", "b.png", "below/a.nii"):
        (folder / name).write_bytes(sound_niftis()[0])
    for way in WAYS[:3]:
        with refusing():
            check_names(case.name for case in find_cases([path], **way))


def name_any_files(content: bytes, folder: Path) -> None:
    """Files of these names, one a line, in folders of these names: every case is one of them."""
    inside = folder / "inputs"
    inside.mkdir()
    for line in content.split(b"\n")[:20]:
        name = line.decode("utf-8", "surrogateescape")
        if "\0" in name or ".." in name.split("/"):
            continue
        target = inside / name.strip("/")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(b"\0" * 128 + b"DICM" if line.endswith(b"dicom") else b"x")
        except OSError:  # no name of a file here
            continue
    for way in WAYS[:2]:
        with refusing():
            cases = find_cases([inside], **way)
            check_names(case.name for case in cases)
            assert all(case.source.path.is_relative_to(inside) for case in cases)


NO_IMAGES = ("1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.66.4")  # a report, a segmentation


def discover_any_dicom(content: bytes, folder: Path) -> None:
    """Files of a folder, told apart by BETWEEN: grouped, sorted and checked; each instance in a volume, no key twice."""
    for i, file in enumerate(content.split(BETWEEN)[:MOST_FILES]):
        (folder / f"{i}.dcm").write_bytes(file)
    files = sorted(folder.iterdir())
    volumes: list[DicomVolume] = []
    with refusing():
        volumes = index_dicom(files)
        images = {file: _instance_uid(file) for file in files if not is_no_image(file)}
        taken = {file for volume in volumes for file in volume.files}
        assert taken <= set(images)
        assert {images[file] for file in taken} == set(images.values()), "only a file that repeats another one may be left out"
        assert len({volume.key for volume in volumes}) == len(volumes)
    for volume in volumes:
        assert "\n" not in volume.facts()
        with refusing():
            check_volume("folder", volume)
            heights = _heights(volume)
            assert (np.diff(heights) > 0).all() or len(volume.files) == 1 or len(heights) < 2
    for source in (Source(folder), Source(folder, fix_geometry=True), *(Source(folder, series=each.key) for each in volumes)):
        with refusing():
            opened = OpenedSource(source)
            opened.check(channels=1)
            assert len(opened.digest) == 64
            assert opened.resampled in (False, True)
    for file in files:
        with refusing():
            OpenedSource(Source(file)).check(channels=1)
    for way in WAYS:
        with refusing():
            check_names(case.name for case in find_cases([folder], **way))
    with refusing():
        referenced_series(OpenedSource(Source(folder)))


def _instance_uid(file: Path) -> str:
    return str(read_dicom_file(file).header.SOPInstanceUID)


def check_any_nifti(content: bytes, folder: Path) -> None:
    """The header, before anybody reads the voxels."""
    path = folder / "image.nii"
    path.write_bytes(content)
    for source, channels in ((Source(path), 1), (Source(path), None), (Source(path, 0), 1)):
        with refusing():
            OpenedSource(source).check(channels)


def sound_lists() -> list[bytes]:
    """MONAI's datalists, of all the forms that they have."""
    entries: list[Any] = [{"image": "a.nii.gz", "label": 1}, {"image": "./b.png"}, "below", "below/a.nii", "./a.nii.gz"]
    sections: list[Any] = [{"testing": entries[:1], "training": entries}, {"validation": entries[:2]}]
    odd: list[Any] = [[{"image": ["b.png"]}], {"validation": entries[3:]}, {"name": "x"}]
    return [json.dumps(content).encode() for content in (entries, *sections, *odd)]


def sound_names() -> list[bytes]:
    """That differ by folder, suffix or letter case alone; of other alphabets or of none; hidden; and a DICOM folder."""
    return [
        b"a/x.nii.gz\nb/x.nii.gz\nx.NII\nc d/\xc3\xa9.png",
        b"x.png\nx.jpg\nX.PNG\na_x.png\na/x.png\nA/x.png\nx-2.png",
        b"\xff\xfe.nii\n.hidden.png\nDICOMDIR\nseries/1.dicom\nseries/dicom",
    ]


def sound_dicom() -> list[bytes]:
    """A volume; one of a tilted gantry; two echoes; a report and a segmentation beside slices; enhanced multi-frame objects;
    a file that is none; mosaics of two vendors."""
    return [
        BETWEEN.join(_instance(k) for k in range(4)),
        BETWEEN.join(_instance(k, ImagePositionPatient=[-10.0, 5.0 + 0.5 * k, 2.5 * k]) for k in range(4)),
        BETWEEN.join(_instance(k // 2, EchoTime=30 * (k % 2), SOPInstanceUID=f"1.2.3.{k}") for k in range(4)),
        BETWEEN.join([*(_instance(k) for k in range(3)), *(_instance(3, SOPClassUID=uid) for uid in NO_IMAGES)]),
        _multiframe(),
        BETWEEN.join([_multiframe(), _instance(0), b"no DICOM"]),
        BETWEEN.join(_bytes_of(vendor(Tiles(np.eye(3), 3, (2, 3)))) for vendor in (siemens, united_imaging)),
    ]


def _instance(k: int, **elements: Any) -> bytes:
    """A CT slice; elements: more of them, or others in their place."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = f"1.2.3.{k + 1}"
    image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
    image.Modality, image.Rows, image.Columns, image.InstanceNumber = "CT", 3, 5, k + 1
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.ImagePositionPatient, image.ImageOrientationPatient = [-10.0, 5.0, 2.5 * k], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [0.5, 0.75]
    image.update(_item(**elements))
    image.PixelData = struct.pack("<15h", *range(15)) * int(image.get("NumberOfFrames", 1))
    return _bytes_of(image)


def _bytes_of(image: Dataset) -> bytes:
    buffer = io.BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _multiframe() -> bytes:
    """Frames with a place and a scale of their own."""
    frames = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[0, 0, 2.0 * k])],
            PixelValueTransformationSequence=[_item(RescaleSlope=1 + k, RescaleIntercept=-k)],
        )
        for k in range(3)
    ]
    shared = _item(
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[_item(PixelSpacing=[0.5, 0.75])],
    )
    several = {"PerFrameFunctionalGroupsSequence": frames, "SharedFunctionalGroupsSequence": [shared], "NumberOfFrames": 3}
    return _instance(9, SeriesInstanceUID="1.2.9", **several)


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _heights(volume: DicomVolume) -> Any:
    """Of the slices along their normal, mm; none where they have no place."""
    if volume.positions is None or volume.orientation is None:
        return np.zeros(0)
    return volume.positions @ np.cross(volume.orientation[:3], volume.orientation[3:])


def sound_niftis() -> list[bytes]:
    """Little and big endian, an oblique place, four axes."""
    place = np.array([[0.8, -0.6, 0, 4], [0.6, 0.8, 0, -5], [0, 0, 2, 6], [0, 0, 0, 1.0]])
    found = []
    for shape, endianness in (((5, 4, 3), "<"), ((5, 4, 3), ">"), ((3, 4, 2, 2), "<")):
        header = nib.Nifti1Header(endianness=endianness)
        header.set_data_dtype(np.int16)
        values = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
        found.append(nib.Nifti1Image(values, place, header).to_bytes())
    return found


TARGETS = (
    Target("case-list", list_any_cases, sound_lists, mutate_json),
    Target("file-names", name_any_files, sound_names, mutate_text),
    Target("dicom", discover_any_dicom, sound_dicom, mutate_dicom, inputs=100),
    Target("nifti", check_any_nifti, sound_niftis),
)
