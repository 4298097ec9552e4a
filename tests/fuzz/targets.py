"""What is fuzzed: everything that reads files which somebody else may have written, damaged or forged.

A target takes bytes, makes files of them in an empty folder, and reads these as the program does. The program may refuse them by
an error of its own, of one line that says something. Whatever else it raises is a find, and so is a file outside of the folder.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from monai_ifim.adapt.options import DecomposeOptions
from monai_ifim.core import IFIMError
from monai_ifim.io import InputError, ModelIdentity, Source, read_sidecar
from monai_ifim.io.dicom_volumes import index_dicom
from monai_ifim.io.scene_bundle import write_scene_bundle
from monai_ifim.io.series import check_volume, is_regular
from monai_ifim.io.source import check_source
from monai_ifim.report.viewer_cases import ViewerError, read_case
from monai_ifim.run.cases import Case, find_cases
from monai_ifim.run.resume import kept_row
from monai_ifim.run.settings import RunSettings
from monai_ifim.run.table import row_from_sidecar
from monai_ifim.run.tally import tabulate

LONGEST = 2000  # characters of a message
BETWEEN = b"\n--next file--\n"
MOST_FILES = 4


@dataclass(frozen=True)
class Target:
    """run: reads `content` by way of files in `folder`; seeds: sound inputs that the fuzzer begins with."""

    name: str
    run: Callable[[bytes, Path], None]
    seeds: Callable[[], list[bytes]]


@contextmanager
def refusing() -> Iterator[None]:
    """An error of the program's own is an answer, if it is one line that says something."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (IFIMError, ViewerError) as error:
        said = str(error)
        if not said.strip() or "\n" in said or len(said) > LONGEST:
            raise AssertionError(f"an error that is not one line which says something: {said!r}") from error


def read_any_sidecar(content: bytes, folder: Path) -> None:
    """By all who read sidecars: resuming, tables, the viewer, which opens nothing from outside of the case's folder."""
    path = folder / "case" / "case_ifim.json"
    path.parent.mkdir()
    path.write_bytes(content)
    image = folder / "case.nii.gz"
    image.write_bytes(b"")
    with refusing():
        read = read_sidecar(path)
        json.loads(json.dumps(read, allow_nan=True))
        row_from_sidecar("case", "done", read)
    settings = RunSettings(folder, DecomposeOptions())
    kept_row(ModelIdentity(), Case("case", Source(image)), settings)
    tabulate(folder)
    with refusing():
        seen = read_case(folder, "case")
        for layer in (*seen.backgrounds, *seen.overlays):
            assert layer.file.parent == path.parent, f"{layer.file} lies outside of the case's folder"


def sound_sidecars() -> list[bytes]:
    """A volume's and a photograph's, with everything in them."""
    files = [
        {
            "file": f"case_ifim_{name}.nii.gz", "content": name, "shape": [5, 4, 3], "affine": np.eye(4).tolist(), "norm": 2.5,
            "scale": 1.0, "window": [-1.0, 1.0],
        }
        for name in ("input", "high", "low", "sensitivity")
    ]  # fmt: skip
    whole: dict[str, Any] = {
        "schema_version": "1.1",
        "generator": {"name": "monai_ifim", "version": "0.1.0", "paper": "arXiv:2606.16362"},
        "input": {
            "file": "case.nii.gz", "sha256": "e3b0c442", "shape": [5, 4, 3], "affine": np.eye(4).tolist(),
            "reader": "NibabelReader", "frame": None, "series": None, "resampled": False,
        },
        "model": {
            "bundle": None, "version": None, "weights_sha256": None, "config_sha256": None, "head": "categorical",
            "class_names": [],
        },
        "prediction": {"class": "output 1", "probability": {"output 0": 0.25, "output 1": 0.75}, "logits": [0.0, 1.1]},
        "space": {"name": "native", "meaning": "the input's own grid"},
        "units": {"maps": "network input intensity", "eigenvalues": "nats", "sensitivity": "nats", "locality_radius": "x"},
        "eigenvalues": [0.5, 0.25], "rank": 2, "energy_kept": 0.99, "trace": 0.76, "locality_radius": [0.1, None],
        "selection": {"energy": 0.99}, "head_requested": "auto", "method": "exact", "method_requested": "auto",
        "method_reason": "few columns", "jacobian_products": 1, "tolerance": 1e-4, "error_bound": 0.0, "confidence": 1.0,
        "residuals": [0.0, 0.0], "memory_budget": None, "metric": None, "precision": None, "preprocessing": None,
        "dtype": "float32", "device": "cpu", "seconds": 0.5, "seed": None,
        "files": files, "source": None, "scene": "case.mrml", "planes": "case_planes.npz", "parametric_maps": [], "versions": {},
        "peak_memory_bytes": 1,
    }  # fmt: skip
    scanner = whole | {
        "space": {"name": "scanner", "meaning": "the scan"},
        "preprocessing": {"steps": [], "equivalents": [], "statistics": "freeze", "resolution": 2.5, "resolution_mm": [2.5] * 3},
        "metric": {"kind": "Gaussian low-pass", "sigma_voxels": [1.0, 1.0, 1.0]},
    }
    return [json.dumps(content).encode() for content in (whole, scanner)]


def bundle_any_scene(content: bytes, folder: Path) -> None:
    """Into one file to hand on, which holds nothing from outside of the scene's folder."""
    secret = folder / "secret.txt"
    secret.write_bytes(b"not for others")
    inside = folder / "case"
    inside.mkdir()
    for name in ("case_ifim_input.nii.gz", "case_spectrum.tsv", "case_spectrum.schema.tsv"):
        (inside / name).write_bytes(b"here")
    scene = inside / "case.mrml"
    scene.write_bytes(content)
    with refusing():
        with zipfile.ZipFile(write_scene_bundle(scene)) as archive:
            assert all(name.startswith("case/") and ".." not in name for name in archive.namelist())
            held = [archive.read(name) for name in archive.namelist()]
        assert secret.read_bytes() not in held


def sound_scenes() -> list[bytes]:
    """As they are written: nodes whose fileName is a file beside the scene."""
    nodes = '<VolumeArchetypeStorage id="v1" fileName="case_ifim_input.nii.gz"/><TableStorage fileName="case_spectrum.tsv"/>'
    return [
        f'<?xml version="1.0"?><MRML version="Slicer 5">{nodes}</MRML>'.encode(),
        b'<!DOCTYPE MRML [<!ENTITY a "b"><!ENTITY c SYSTEM "file:///etc/passwd">]><MRML><V fileName="%2e%2e/secret.txt"/></MRML>',
    ]


def list_any_cases(content: bytes, folder: Path) -> None:
    """A datalist: every case has a name that is one folder's, and no two have the same."""
    path = folder / "list.json"
    path.write_bytes(content)
    (folder / "a.nii.gz").write_bytes(b"")
    (folder / "b.png").write_bytes(b"")
    with refusing():
        names = [case.name for case in find_cases([path])]
        assert len(set(names)) == len(names)
        assert not [name for name in names if name in ("", ".", "..") or "/" in name or "\0" in name]


def sound_lists() -> list[bytes]:
    """MONAI's datalists, of all the forms that they have."""
    entries: list[Any] = [{"image": "a.nii.gz", "label": 1}, {"image": ["b.png"]}, {"image": "./b.png"}, "a.nii.gz"]
    return [
        json.dumps(content).encode()
        for content in (
            entries[::2],
            entries,
            {"testing": entries[:1], "training": entries},
            {"validation": entries[3:]},
            {"name": "x"},
        )
    ]


def discover_any_dicom(content: bytes, folder: Path) -> None:
    """Files of a folder, told apart by BETWEEN: grouped, sorted and checked."""
    for i, file in enumerate(content.split(BETWEEN)[:MOST_FILES]):
        (folder / f"{i}.dcm").write_bytes(file)
    _discover(folder)


def discover_any_headers(content: bytes, folder: Path) -> None:
    """Slices whose headers have elements of any value: two bytes choose one, the bytes up to a line's end are its text."""
    slices = [_slice(k) for k in range(3)]
    for line in content.split(b"\n")[:40]:
        if len(line) < 2:
            continue
        keyword = ELEMENTS[line[1] % len(ELEMENTS)]
        tag = pydicom.datadict.tag_for_keyword(keyword)
        assert tag is not None
        vr = pydicom.datadict.dictionary_VR(tag)
        for image in slices if line[0] % 4 == 3 else [slices[line[0] % 4]]:
            image[tag] = pydicom.dataelem.RawDataElement(pydicom.tag.Tag(tag), vr, len(line) - 2, line[2:], 0, False, True, True)
    for k, image in enumerate(slices):
        buffer = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image.save_as(buffer, enforce_file_format=False)
        except Exception:  # what pydicom does not write cannot be read
            return
        (folder / f"{k}.dcm").write_bytes(buffer.getvalue())
    _discover(folder)


ELEMENTS = (
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SeriesInstanceUID", "Rows", "Columns", "NumberOfFrames",
    "InstanceNumber", "AcquisitionNumber", "EchoTime", "TemporalPositionIdentifier", "RescaleSlope", "RescaleIntercept",
    "Modality", "SliceThickness", "SamplesPerPixel", "BitsAllocated", "PhotometricInterpretation", "SOPClassUID",
    "FrameOfReferenceUID",
    "SpacingBetweenSlices", "ImageType", "Units", "RescaleType",
)  # fmt: skip


def _discover(folder: Path) -> None:
    files = sorted(folder.iterdir())
    with refusing():
        for volume in index_dicom(files):
            assert set(volume.files) <= set(files)
            is_regular(volume)
            with refusing():
                check_volume("folder", volume)
    with refusing():
        check_source(Source(folder), channels=1)
    with refusing():
        names = [case.name for case in find_cases([folder], series="all")]
        assert len(set(names)) == len(names)


def _slice(k: int) -> Any:
    image = copy.deepcopy(_template())
    image.ImagePositionPatient = [-10.0, 5.0, 2.5 * k]
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
    image.Rows, image.Columns, image.PixelData = 3, 5, struct.pack("<15h", *range(15))
    return image


@cache
def _template() -> Any:
    """A CT slice with no more in its header than is asked for."""
    whole = pydicom.dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    for element in list(whole):
        if element.keyword not in (*ELEMENTS, "SOPInstanceUID", "StudyInstanceUID", "PixelRepresentation", "PixelData"):
            del whole[element.tag]
    return whole


def sound_series() -> list[bytes]:
    """Three slices, and a file that is none."""
    written = []
    for k in range(3):
        buffer = io.BytesIO()
        _slice(k).save_as(buffer)
        written.append(buffer.getvalue())
    return [BETWEEN.join(written), BETWEEN.join([written[0], b"no DICOM"])]


def sound_headers() -> list[bytes]:
    """Nothing changed, and one of each element."""
    values = [b"0\\0\\7.5", b"1\\0\\0\\0\\1\\0", b"0.5\\0.5", b"1.2.3", b"\x03\x00", b"\x05\x00", b"2", b"1", b"1", b"30", b"1"]
    values += [b"1", b"-1024", b"CT", b"2.5", b"\x01\x00", b"\x10\x00", b"MONOCHROME2", b"1.2.840.10008.5.1.4.1.1.2", b"1.2.4"]
    values += [b"2.5", b"ORIGINAL\\PRIMARY", b"BQML", b"HU"]
    lines = [bytes([65 + 3 * (i % 2), 48 * 0 + i]) + value for i, value in enumerate(values) if i != 10]
    return [b"", b"\n".join(lines), b"\n".join(lines[:3])]


def check_any_nifti(content: bytes, folder: Path) -> None:
    """The header, before anybody reads the voxels."""
    path = folder / "image.nii"
    path.write_bytes(content)
    for channels in (1, None):
        with refusing():
            check_source(Source(path), channels)
    with refusing():
        check_source(Source(path, 0), 1)


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


TARGETS = {
    target.name: target
    for target in (
        Target("sidecar", read_any_sidecar, sound_sidecars),
        Target("scene", bundle_any_scene, sound_scenes),
        Target("case-list", list_any_cases, sound_lists),
        Target("dicom-files", discover_any_dicom, sound_series),
        Target("dicom-headers", discover_any_headers, sound_headers),
        Target("nifti", check_any_nifti, sound_niftis),
    )
}
__all__ = ["TARGETS", "InputError", "Target"]
