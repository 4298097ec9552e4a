"""Personal data of a DICOM, NIfTI or picture file reach no output, message or log line.

Names, numbers, dates and free text are planted wherever such files can hold them (planted.py); the command line then runs over
them, with every library's log at its most talkative, and all that was written is searched, unpacked as far as it goes.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import os
import socket
import stat
import sys
import tempfile
import warnings
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from monai.data import DataLoader
from monai.data import Dataset as DataSet
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized
from PIL import Image, PngImagePlugin
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from fake_pacs import FakePacs
from monai_ifim.adapt import IFIMDecomposed, IFIMHandler, SaveIFIMd
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli.main import main
from monai_ifim.core import IFIMError
from monai_ifim.io.dicom.reader import register_dicom_reader
from monai_ifim.run.cases import find_cases
from monai_ifim.run.cluster import connection
from monai_ifim.run.local import run_cases
from monai_ifim.run.settings import RunSettings
from planted import (
    FOREIGN,
    SERIES_ROOT,
    UID_ROOT,
    found_in,
    in_character_set,
    mark,
    plant,
    spoilt,
    tag_of,
    write_nifti,
    write_pictures,
)
from synthetic_series import ORIENTATIONS, Series, write

LIBRARIES = (
    "pydicom",
    "highdicom",
    "PIL",
    "nibabel",
    "monai",
    "ignite",
    "matplotlib",
    "urllib3",
    "dicomweb_client",
    "monai_ifim",
)


@dataclass
class Run:
    """Result of one command: exit status, output folder, and every byte of its messages."""

    status: int = 0
    folder: Path = field(default_factory=Path)
    said: bytes = b""

    def found(self, leave_out: Callable[[Path], bool] = lambda _: False) -> dict[str, set[str]]:
        """Planted things by where they were found; "said" stands for messages and logs."""
        places = {"said": found_in(self.said)}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if not leave_out(name):
                places[str(name)] = found_in(str(name).encode()) | (found_in(path.read_bytes()) if path.is_file() else set())
        return {place: marks for place, marks in places.items() if marks}

    def cases(self) -> dict[str, str]:
        with (self.folder / "cases.csv").open(encoding="utf-8") as file:
            return {row["case"]: row["status"] for row in csv.DictReader(file)}


@contextmanager
def everything_said(run: Run) -> Iterator[None]:
    """Collects the two standard streams (of C code too), all log records and all warnings."""
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in ("", *LIBRARIES)}
    streams = sys.stdout, sys.stderr
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        stream = os.fdopen(os.dup(file.fileno()), "w", encoding="utf-8", errors="backslashreplace")
        kept = [os.dup(1), os.dup(2)]
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = stream
        handler = logging.StreamHandler(stream)
        root.addHandler(handler)
        for name in levels:
            logging.getLogger(name).setLevel(logging.DEBUG)
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, kind, *_, **__: print(f"{kind.__name__}: {message}", file=stream)
        try:
            yield
        finally:
            stream.flush()
            sys.stdout, sys.stderr = streams
            root.removeHandler(handler)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)
            stream.close()
            file.seek(0)
            run.said = file.read()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`monai-ifim` as its users start it, in this process."""
    monkeypatch.setenv("COLUMNS", "1000")  # tables are not wrapped in the middle of a word
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(socket.socket, "connect", _on_this_machine(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", _on_this_machine(socket.socket.connect_ex))

    def start(*words: object, out: str = "out") -> Run:
        run = Run(folder=tmp_path / out)
        monkeypatch.setattr(sys, "argv", ["monai-ifim", *map(str, words)])
        with everything_said(run):
            try:
                main()
            except SystemExit as end:
                run.status = int(end.code or 0)
        return run

    return start


def _on_this_machine(connect: Callable[..., Any]) -> Callable[..., Any]:
    """`connect`, which ends the test where it is asked to leave the machine."""

    def checked(self: socket.socket, address: Any) -> Any:
        local = self.family == socket.AF_UNIX or str(address[0]).startswith("127.") or address[0] in ("::1", "localhost")
        if not local:
            pytest.fail(f"a connection to {address} was asked for")
        return connect(self, address)

    return checked


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("in")


@pytest.fixture(scope="module")
def series() -> list[Dataset]:
    """An oblique series with everything planted in it."""
    with disable_value_validation():
        return plant(Series(ORIENTATIONS["oblique"], slices=6).slices())


@pytest.fixture(scope="module")
def other() -> list[Dataset]:
    """Another series, of other orientation and UID."""
    with disable_value_validation():
        return plant(Series(ORIENTATIONS["axial"], slices=5).slices(), FOREIGN[1], uid=2)


@pytest.fixture(scope="module")
def good(place: Path, series: list[Dataset]) -> Path:
    """A folder of inputs that can be decomposed: a series, one in each set of characters, NIfTI-1, NIfTI-2, a pair of files."""
    folder, rng = place / "good", np.random.default_rng(7)
    with disable_value_validation():
        write(folder / "series", series)
        for i, name in enumerate(FOREIGN):
            write(folder / f"set{i}", [in_character_set(image, name) for image in series[:4]])
    values = rng.normal(size=(9, 8, 7)).astype(np.float32)
    write_nifti(folder / "one.nii.gz", nib.Nifti1Image(values, np.diag([1.5, 1.0, 2.0, 1.0])))
    write_nifti(folder / "two.nii", nib.Nifti2Image(values, np.eye(4)))
    write_nifti(folder / "pair.img", nib.Nifti1Pair(values, np.eye(4)), extensions=False)
    return folder


@pytest.fixture(scope="module")
def bad(place: Path, series: list[Dataset]) -> Path:
    """A folder of inputs that are refused."""
    folder = place / "bad"
    uneven, same, tilted = (Series(ORIENTATIONS["axial"], slices=6) for _ in range(3))
    uneven.places, same.places = np.array([0, 2.5, 5, 9, 11.5, 14]), np.array([0, 2.5, 5, 5, 7.5, 10])
    tilted.axes = tilted.axes.copy()
    tilted.axes[:, 2] = [0, 0.3, 0.954]
    with disable_value_validation():
        for name, one in (("uneven", uneven), ("same", same), ("tilted", tilted)):
            write(folder / name, plant(one.slices(), uid=3))
        for name, length in (("cut_in_header", 9000), ("cut_in_pixels", -30)):
            write(folder / name, series)
            (folder / name / "IM003").write_bytes((folder / name / "IM003").read_bytes()[:length])
        for keyword in ("Rows", "NumberOfFrames", "PixelSpacing", "BitsAllocated", "SamplesPerPixel"):
            write(folder / keyword, [spoilt(series[0], keyword, f"Zw{tag_of(keyword):08x}"), *series[1:]])
        write(folder / "syntax", series)
        for file in (folder / "syntax").iterdir():
            file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"Zw00020010.1.2.3.4\0\0"))
        write(folder / "two", [*series, *plant(Series(ORIENTATIONS["axial"], slices=5).slices(), uid=2)])
    values = np.random.default_rng(8).normal(size=(6, 5, 4)).astype(np.float32)
    odd = nib.Nifti1Image(values, np.eye(4))
    odd.set_qform(np.diag([2.0, 2.0, 2.0, 1.0]))
    write_nifti(folder / "odd.nii", odd)
    whole = write_nifti(folder / "cut.nii", nib.Nifti1Image(values, np.eye(4))).read_bytes()
    (folder / "cut.nii").write_bytes(whole[:900])
    (folder / "magic.nii").write_bytes(whole[:344] + b"Zw\0\0" + whole[348:])
    (folder / "broken.nii.gz").write_bytes(gzip.compress(whole)[:400])
    return folder


@pytest.fixture(scope="module")
def bundle(place: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(place / "bundle")


@pytest.fixture(scope="module")
def flat_bundle(place: Path, make_bundle: Callable[..., Path]) -> Path:
    return make_bundle(place / "flat_bundle", dims=2)


def steps(**load: Any) -> list[dict[str, Any]]:
    return [{"_target_": "LoadImaged", "keys": "image", **load}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]


def test_the_search_finds_what_is_planted_and_in_whatever_it_is_packed(good: Path, series: list[Dataset]) -> None:
    in_header = found_in((good / "series" / "IM000").read_bytes())
    assert {
        "zw00100010",
        "zw00081030",
        "zw00080080",
        "zw00204000",
        "zw00000043",
        "zw00000026",
        UID_ROOT,
        SERIES_ROOT,
    } <= in_header
    assert {str(series[0].PatientBirthDate), str(series[0].StudyDate), "231907.318207", *FOREIGN} <= in_header
    assert len(in_header) > 400
    assert [FOREIGN[i] in found_in((good / f"set{i}" / "IM001").read_bytes()) for i in range(3)] == [True] * 3
    assert {f"zw0000005{i}" for i in (1, 2, 3, 4, 7, 8)} <= found_in((good / "one.nii.gz").read_bytes())
    text, picture, packed = mark(1), io.BytesIO(), io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("who", text, zip=True)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(picture, "png", pnginfo=info)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("case/inside.nii.gz", gzip.compress(text.encode("utf-16-le") * 3))
    table = io.BytesIO()
    pd.DataFrame({"reason": [text] * 3}).to_parquet(table)
    in_page = b"<img src='data:image/png;base64," + b64encode(picture.getvalue()) + b"'>"
    in_script = json.dumps({"packs": [b64encode(zlib.compress(text.encode() * 9)).decode()]}).encode()
    for content in (picture.getvalue(), packed.getvalue(), table.getvalue(), in_page, in_script, ascii(text).encode()):
        assert "zw00000001" in found_in(content)
    assert found_in(b"0.16010318 7716010318 1.9.77181") == set()


@pytest.mark.slow
@pytest.mark.parametrize("space", ["native", "network", "scanner"])
def test_no_output_of_a_run_holds_any(space: str, good: Path, bundle: Path, command: Callable[..., Run], tmp_path: Path) -> None:
    words = ("decompose", good, "--bundle", bundle, "-o", tmp_path / "out", "--space", space, "--mrb", "--rank", 1)
    run = command(*words)
    assert (run.status, set(run.cases().values()), len(run.cases())) == (0, {"done"}, 7)
    assert run.found() == {}
    kinds = {"".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix for path in run.folder.rglob("*.*")}
    assert kinds == {".nii.gz", ".json", ".mrml", ".mrb", ".npz", ".ctbl", ".tsv", ".csv", ".parquet", ".html"}
    if space == "native":
        again = command(*words)
        assert set(again.cases().values()) == {"kept"}
        assert again.found() == {}


@pytest.mark.usefixtures("blank_figure")
@pytest.mark.parametrize("words", [(), ("--fix-geometry",)], ids=["plain", "fix-geometry"])
def test_no_refusal_of_a_case_quotes_any(
    words: tuple[str, ...], bad: Path, bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    run = command("--debug", "decompose", bad, "--bundle", bundle, "-o", tmp_path / "out", *words)
    done = {name for name, status in run.cases().items() if status == "done"}
    assert done == ({"uneven", "tilted"} if words else set())
    assert (run.status, len(run.cases())) == (3, 16)
    series_alone = {place: {SERIES_ROOT} for place in ("said", "cases.csv", "cases.parquet", "index.html")}
    assert run.found() == series_alone  # the two series in one folder, to choose from


@pytest.mark.usefixtures("blank_figure")
def test_a_series_that_is_chosen_is_named_by_its_uid_alone(
    bad: Path, bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    out = ("--bundle", bundle, "-o", tmp_path / "out")
    run = command("decompose", bad / "two", *out, "--series", "all")
    assert set(run.cases().values()) == {"done"}
    sidecars = {f"{name}/{name}_ifim.json" for name in run.cases()}
    assert run.found() == {name: {SERIES_ROOT} for name in sidecars}
    assert command("--debug", "decompose", bad / "two", *out, "--series", "1.2.3").found(lambda _: True) == {}


@pytest.mark.usefixtures("blank_figure")
@pytest.mark.slow
def test_codes_that_are_no_codes_are_not_repeated(
    place: Path, series: list[Dataset], other: list[Dataset], bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    folder = place / "codes"
    with disable_value_validation():
        for keyword, value in (("SeriesInstanceUID", "Zw0020000e/../../x"), ("Modality", "Zw00080060 ü")):
            write(folder / keyword, [spoilt(image, keyword, value) for image in series])
            for i, image in enumerate(other):
                further = spoilt(image, keyword, value)
                further.StudyInstanceUID = series[0].StudyInstanceUID  # a series is of one study
                further.save_as(folder / keyword / f"X{i}")
        texts = {"PatientID": "Zw00100020 " + 70 * "x", "PatientBirthDate": "Zw00100030", "StudyInstanceUID": "Zw0020000d"}
        texts |= {name: f"Zw{tag_of(name):08x}" for name in ("AcquisitionTime", "PatientWeight", "EchoTime", "RescaleType")}
        for keyword, value in texts.items():
            write(folder / keyword, [spoilt(image, keyword, value) for image in series[:4]])
        write(folder / "SpecificCharacterSet", [spoilt(image, "SpecificCharacterSet", "Zw00080005") for image in series[:4]])
    run = command("--debug", "decompose", folder, "--bundle", bundle, "-o", tmp_path / "out")
    failed = {name for name, status in run.cases().items() if status == "failed"}
    assert failed == {"SeriesInstanceUID", "Modality"}
    assert set().union(*run.found().values()) == {SERIES_ROOT}
    odd = command(
        "decompose", folder / "SeriesInstanceUID", "--bundle", bundle, "-o", tmp_path / "odd", "--series", "all", out="odd"
    )
    assert set(odd.cases().values()) == {"done"}
    assert odd.found() == {}


@pytest.mark.usefixtures("blank_figure")
def test_one_volume_of_several_and_pictures_and_slices_bring_none(
    place: Path, series: list[Dataset], bundle: Path, flat_bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    rng = np.random.default_rng(9)
    four = nib.Nifti1Image(rng.normal(size=(6, 5, 4, 3)).astype(np.float32), np.eye(4))
    film = write_nifti(place / "four.nii.gz", four)
    run = command("decompose", film, "--bundle", bundle, "-o", tmp_path / "out", "--frame", 1)
    assert run.status == 0
    assert run.found() == {}
    assert found_in(command("--debug", "decompose", film, "--bundle", bundle, "-o", tmp_path / "out").said) == set()
    pictures = write_pictures(place / "pictures", rng.integers(0, 255, (20, 22)))
    assert all(found_in(picture.read_bytes()) for picture in pictures)
    with disable_value_validation():
        series[0].save_as(place / "slice.dcm")
    words = ("decompose", place / "pictures", place / "slice.dcm", "--bundle", flat_bundle, "-o", tmp_path / "flat", "--mrb")
    run = command(*words, out="flat")
    assert run.cases() == dict.fromkeys(("photo", "plate", "portrait", "slice"), "done")
    assert run.found() == {}


@pytest.mark.usefixtures("blank_figure")
@pytest.mark.parametrize("load", [{"reader": "PydicomReader"}, {"reader": "NibabelReader"}, {"image_only": False}], ids=str)
def test_no_reader_and_no_log_of_a_failing_step_tells_any(
    load: dict[str, Any], place: Path, good: Path, series: list[Dataset], make_bundle: Callable[..., Path],
    command: Callable[..., Run], tmp_path: Path,
) -> None:  # fmt: skip
    failing = [*steps(**load), {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [9, 8, 7, 6]}]
    root = make_bundle(tmp_path / "bundle", steps=failing)
    config = json.loads((root / "configs" / "inference.json").read_text())
    config["preprocessing"]["log_stats"] = True
    (root / "configs" / "inference.json").write_text(json.dumps(config))
    with disable_value_validation():
        series[0].save_as(place / "slice.dcm")
    inputs = (place / "slice.dcm", good / "series", good / "one.nii.gz")
    run = command("--debug", "decompose", *inputs, "--bundle", root, "-o", tmp_path / "out")
    assert set(run.cases().values()) == {"failed"}
    assert run.found() == {}
    assert b"Transform input info" in run.said
    assert found_in(command("--debug", "check", "--bundle", root, "--image", place / "slice.dcm").said) == set()


META = "NDims = 3\nDimSize = 3 4 5\nElementType = {}\nElementDataFile = {}\n"
NRRD = "NRRD0004\ntype: {}\ndimension: 3\nsizes: 3 4 5\nencoding: {}\ncontent: Zw00000061\n"
NUMPY = b"\x93NUMPY\x01\0"


def numpy_file(header: str) -> bytes:
    return NUMPY + len(header).to_bytes(2, "little") + header.encode() + 240 * b"\0"


DAMAGED = {
    "dtype.npy": numpy_file("{'descr': 'Zw00000062', 'fortran_order': False, 'shape': (3, 4, 5)}\n"),
    "keys.npy": numpy_file("{'Zw00000063': 1}\n"),
    "words.npy": numpy_file("Zw00000064 (\n"),
    "objects.npy": b"Zw00000065",
    "type.nrrd": NRRD.format("Zw00000066", "raw").encode() + b"\n" + 60 * b"\0",
    "encoding.nrrd": NRRD.format("uchar", "Zw00000067").encode() + b"\n" + 60 * b"\0",
    "field.nrrd": NRRD.format("uchar", "raw").encode() + b"Zw00000068: 1\n\n" + 60 * b"\0",
    "file.nhdr": NRRD.format("uchar", "raw").encode() + b"data file: Zw00000069.raw\n",
    "away.nhdr": NRRD.format("uchar", "raw").encode() + b"data file: ../Zw0000006a\n",
    "type.mha": META.format("Zw0000006b", "LOCAL").encode() + 60 * b"\0",
    "file.mhd": META.format("MET_UCHAR", "Zw0000006c.raw").encode(),
    "line.mhd": b"Zw0000006d\n" + META.format("MET_UCHAR", "LOCAL").encode(),
    "words.nii.gz": gzip.compress(b"Zw0000006e" * 60),
    "packed.nii.gz": b"\x1f\x8b\x08\x00Zw0000006f",
    "words.hdr": b"Zw0000004e" * 40,
    "words.png": b"\x89PNG\r\n\x1a\nZw0000004f",
    "words.tif": b"II*\0Zw0000005a" + 60 * b"\0",
    "words.jpg": b"\xff\xd8\xff\xfe\0\x0cZw0000005b",
    "words": b"Zw0000005c",
    "words.vtk": b"# vtk DataFile Version 3.0\nZw0000005d\nASCII\nDATASET Zw0000005e\n",
}


@pytest.mark.usefixtures("blank_figure")
@pytest.mark.parametrize("load", [{}, {"reader": "ITKReader"}, {"reader": "NibabelReader"}, {"reader": "PILReader"}], ids=str)
def test_no_damaged_file_of_any_format_is_quoted(
    load: dict[str, Any], make_bundle: Callable[..., Path], command: Callable[..., Run], tmp_path: Path
) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name, content in DAMAGED.items():
        assert b"Zw000000" in content or name == "words.nii.gz"
        (folder / name).write_bytes(content)
    root = make_bundle(tmp_path / "bundle", steps=steps(**load))
    run = command("--debug", "decompose", *sorted(folder.iterdir()), "--bundle", root, "-o", tmp_path / "out")
    assert list(run.cases().values()) == ["failed"] * len(DAMAGED)
    assert run.found() == {}


@pytest.mark.parametrize("names", ["path", "hash"])
@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        ([{"Zw00000061": "a.nii"}], 1, set()),
        (["Zw00000062.nii", {"image": 7, "who": "Zw00000063"}], 3, {"zw00000062"}),  # a case is called by its file
        ({"Zw00000064": [{"image": "a"}], "b": [{"image": "b"}]}, 1, set()),
    ],
)  # fmt: skip
def test_no_datalist_is_quoted(
    content: Any, status: int, told: set[str], names: str, bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    (tmp_path / "list.json").write_text(json.dumps(content))
    words = ("--bundle", bundle, "-o", tmp_path / "out", "--case-names", names)
    run = command("--debug", "decompose", tmp_path / "list.json", *words)
    assert run.status == status
    assert found_in(run.said) == (told if names == "path" else set())


@pytest.mark.usefixtures("blank_figure")
def test_check_tells_none(good: Path, bad: Path, bundle: Path, command: Callable[..., Run]) -> None:
    assert found_in(command("check", "--bundle", bundle, "--image", good / "series").said) == set()
    assert found_in(command("--debug", "check", "--bundle", bundle, "--image", bad / "Rows", "--json").said) == set()


# What files an object under its patient and study (PS3.3: Patient C.7.1.1, General Study C.7.2.1, Frame of Reference C.7.4.1),
# and the references to the images that the maps were made of (C.7.6.16, General Reference C.12.4).
IDENTITY = {
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSpeciesDescription", "PatientBreedDescription",
    "ResponsiblePerson", "ResponsibleOrganization", "DeidentificationMethod", "DeidentificationMethodCodeSequence.CodeMeaning",
    "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence.LocalNamespaceEntityID", "ReferringPhysicianName", "FrameOfReferenceUID",
    "PositionReferenceIndicator",
}  # fmt: skip
REFERENCES = {"ReferencedSOPInstanceUID", "SeriesInstanceUID"}


def planted_elements(dataset: Dataset, above: str = "") -> Iterator[str]:
    """Names of all elements that hold something planted."""
    for element in dataset:
        name = f"{above}{element.keyword or element.tag}"
        if element.VR == "SQ":
            for item in element.value:
                yield from planted_elements(item, f"{name}.")
        elif found_in(str(element.value).encode()):
            yield name


def test_only_parametric_maps_keep_identity_and_no_free_text(
    good: Path, bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    run = command("decompose", good / "series", "--bundle", bundle, "-o", tmp_path / "out", "--dicom-pm", "--mrb", "--rank", 1)
    assert run.status == 0
    maps = sorted(run.folder.glob("*/*.dcm"))
    assert len(maps) == 4
    assert run.found(lambda path: path.suffix == ".dcm") == {}
    for path in maps:
        found = set(planted_elements(pydicom.dcmread(path)))
        assert {name for name in found if name.rpartition(".")[2] not in REFERENCES} == IDENTITY
        assert {name.rpartition(".")[2] for name in found} - {name.rpartition(".")[2] for name in IDENTITY} == REFERENCES
        assert found_in(path.read_bytes()[:128]) == set()
        assert list(planted_elements(pydicom.dcmread(path).file_meta)) == []


@pytest.mark.usefixtures("blank_figure")
def test_a_round_trip_with_a_pacs_leaves_identity_in_dicom_alone(
    series: list[Dataset], other: list[Dataset], bundle: Path, command: Callable[..., Run], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("IFIM_PACS_USER", "IFIM_PACS_PASSWORD", "IFIM_PACS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    study = str(series[0].StudyInstanceUID)
    with FakePacs(series) as pacs:
        words = ("pacs", "--url", pacs.url, "--study", study, "--bundle", bundle, "-o", tmp_path / "out", "--rank", 1)
        run = command(*words)
    assert run.status == 0
    found = run.found(lambda path: path.suffix == ".dcm" or path.parts[0] == "dicom")
    [sidecar] = [name for name in found if name.endswith("_ifim.json")]
    assert found.pop(sidecar) == {SERIES_ROOT, UID_ROOT}  # pulled files are named by the UIDs of their images
    assert found.pop("pacs-audit.jsonl") == {SERIES_ROOT, UID_ROOT}  # UIDs are its purpose
    assert set().union(*found.values()) == {SERIES_ROOT}  # the folder of what was pulled is named by it
    assert "said" not in found
    assert stat.S_IMODE((run.folder / "dicom").stat().st_mode) == 0o700
    assert len(pacs.content) == 10
    assert pacs.url.startswith("http://127.0.0.1:")


def test_a_cluster_of_our_own_reports_to_nobody(place: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray sends usage statistics to its makers unless it is told not to."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    told: list[str | None] = []

    def init(**_: Any) -> None:
        told.append(os.environ.get("RAY_USAGE_STATS_ENABLED"))
        raise RuntimeError("seen enough")

    monkeypatch.setattr(
        connection, "_import_ray", lambda: SimpleNamespace(is_initialized=lambda: False, init=init, shutdown=lambda: None)
    )
    with pytest.raises(IFIMError, match="seen enough"), connection.connected(bundle):
        pass
    assert told == ["0"]
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ


@pytest.mark.slow
def test_neither_the_library_nor_its_transforms_tell_any_at_debug(
    place: Path, good: Path, bad: Path, series: list[Dataset], bundle: Path, make_network: Callable[..., Any], tmp_path: Path
) -> None:
    """Without the command line, which silences the libraries."""
    run = Run(folder=tmp_path / "out")
    with everything_said(run):
        cases = find_cases([good, *(bad / name for name in ("Rows", "PixelSpacing", "syntax", "cut_in_pixels"))])
        rows = run_cases(load_bundle(bundle), cases, RunSettings(tmp_path / "out", CaseSettings("categorical")), print)
    assert sum(row.status == "done" for row in rows) == 7
    assert run.found() == {}
    with disable_value_validation():
        series[0].save_as(place / "slice.dcm")
    plain = LoadImaged("image", reader="ITKReader")  # MONAI's own, which keeps the whole header of a slice
    assert "zw00100010" in found_in(repr(plain({"image": str(place / "slice.dcm")})["image"].meta).encode())
    network = make_network(2)
    for own_reader in (False, True):
        reading = [LoadImaged("image", reader="ITKReader"), EnsureChannelFirstd("image")]
        preprocessing = Compose([*reading, Resized("image", (12, 10, 1))])
        squeezed = Compose([*preprocessing.transforms[:2]])
        if own_reader:
            register_dicom_reader(squeezed)
        run = Run(folder=tmp_path / f"chain-{own_reader}")
        with everything_said(run):
            image = squeezed({"image": str(place / "slice.dcm")})["image"].squeeze(-1)
            made = IFIMDecomposed("image", network, head="categorical")({"image": image})
            SaveIFIMd("image", run.folder, space="network")(made)
        assert (run.folder / "slice" / "slice_ifim.json").is_file()
        assert run.found() == {}
        if own_reader:
            assert found_in(repr(image.meta).encode()) == set()


@pytest.mark.usefixtures("blank_figure")
def test_names_of_files_and_folders_are_the_users_and_are_repeated(
    bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    folder = tmp_path / "Zw0000000f"
    folder.mkdir()
    image = nib.Nifti1Image(np.random.default_rng(3).normal(size=(6, 5, 4)).astype(np.float32), np.eye(4))
    nib.save(image, folder / "Zw0000001f.nii")
    run = command("decompose", folder, "--bundle", bundle, "-o", tmp_path / "out")
    assert run.cases() == {"Zw0000001f": "done"}
    assert set().union(*run.found().values()) == {"zw0000001f"}


@pytest.fixture
def named_after_patients(tmp_path: Path, series: list[Dataset]) -> Path:
    """Inputs of many kinds, whole and broken, with a mark in the name of each file and folder."""
    root = tmp_path / mark(0x100020) / mark(0x100030)
    root.mkdir(parents=True)
    image = nib.Nifti1Image(np.random.default_rng(3).normal(size=(6, 5, 4)).astype(np.float32), np.eye(4))
    for name in ("Zw0010000a.nii", "Zw0010000b.nii.gz", "Zw0010000c.hdr"):
        nib.save(nib.Nifti1Pair.from_image(image) if name.endswith("hdr") else image, root / name)
    (root / "Zw0010000d.mhd").write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_FLOAT\nElementDataFile = Zw0010000e.raw\n"
    )
    (root / "Zw0010000e.raw").write_bytes(np.ones(120, np.float32).tobytes())
    whole = (root / "Zw0010000a.nii").read_bytes()
    (root / "Zw0010000f.nii").write_bytes(whole[:-60])
    (root / "Zw0020000a.nii").write_bytes(b"")
    (root / "Zw0020000b.png").write_bytes(b"no picture")
    (root / "Zw0020000c.nii.gz").write_bytes(b"no gzip")
    (root / "Zw0020000d.mhd").write_text("ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementDataFile = Zw0020000e.raw\n")
    for folder, files in (("Zw0040000a", series), ("Zw0040000b", series[:1] + series[3:])):
        (root / folder).mkdir()
        for number, each in enumerate(files):
            with disable_value_validation():
                each.save_as(root / folder / f"Zw0038{number:04d}.dcm")
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figure")
def test_pseudonyms_leave_no_name_of_a_file_or_a_folder_anywhere(
    named_after_patients: Path, bundle: Path, command: Callable[..., Run], tmp_path: Path
) -> None:
    given = ("--case-names", "hash", "--mrb", "--save", "high", "--no-locality", "--verify", "never")
    words = ("decompose", named_after_patients, "--bundle", bundle, "-o", tmp_path / "out", *given)
    first = command(*words)
    assert first.found() == {}
    cases = first.cases()
    assert list(cases.values()).count("done") >= 5
    assert list(cases.values()).count("failed") >= 5
    second = command("--debug", *words)
    assert second.found() == {}
    assert second.cases() == {name: status.replace("done", "kept") for name, status in cases.items()}
    table = tmp_path / "out.case-names.jsonl"
    assert stat.S_IMODE(table.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    found = {line["case"]: line["input"] for line in lines[1:]}
    done = [name for name, status in cases.items() if status == "done"]
    assert set(done) <= set(found)
    assert all(found[name].startswith(str(named_after_patients)) for name in done)


def test_pseudonyms_leave_no_name_in_an_error_before_the_run(bundle: Path, command: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "Zw0010000a").mkdir()
    for place in (tmp_path / "Zw0010000a", tmp_path / "Zw0010000b" / "Zw0010000c.nii"):
        run = command("decompose", place, "--bundle", bundle, "-o", tmp_path / "out", "--case-names", "hash")
        assert run.status == 1
        assert b"input 1: no" in run.said
        assert found_in(run.said) == set()


@pytest.mark.parametrize("writer", ["transform", "handler"])
def test_pseudonyms_leave_no_name_in_what_pipelines_write(
    writer: str, make_network: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "Zw0010000a" / "Zw0010000b.nii"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(np.random.default_rng(3).normal(size=(12, 10, 8)).astype(np.float32), np.eye(4)), path)
    pre, out = Compose([LoadImaged("image"), EnsureChannelFirstd("image")]), tmp_path / "out"
    network = make_network(3)
    for _ in range(2):
        if writer == "transform":
            image = IFIMDecomposed("image", network, head="categorical")(pre({"image": str(path)}))
            SaveIFIMd("image", out, space="network", case_names="hash")(image)
        else:
            loader = DataLoader(DataSet([{"image": str(path)}], pre), batch_size=1)
            evaluator = SupervisedEvaluator(
                torch.device("cpu"), loader, network, prepare_batch=lambda batch, *_, **__: (batch["image"], None)
            )
            IFIMHandler(output_dir=out, head="categorical", space="network", case_names="hash").attach(evaluator)
            evaluator.run()
    assert len(list(out.glob("*/*_ifim.json"))) == 1
    assert Run(folder=out, said=caplog.text.encode()).found() == {}
