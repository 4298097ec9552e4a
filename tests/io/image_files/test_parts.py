"""Images whose headers name other files: what ITK would read for them, and what is refused before it is asked."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, LoadImage
from PIL import Image

from monai_ifim.io import OpenedSource, Source
from monai_ifim.io.dicom.reader import register_dicom_reader
from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.formats import is_known_format
from monai_ifim.io.image_files.parts import files_of
from synthetic_series import ORIENTATIONS, Series, write

SHAPE = (4, 4, 4)
OWN = np.arange(64, dtype=np.uint8).reshape(SHAPE)
SECRET = OWN + 100
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "ElementSpacing = 1 1 1\nDimSize = 4 4 4\nElementType = MET_UCHAR\n"
)
NRRD = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\n"
SLICES = "".join(f"q{k:02d}.raw\n" for k in range(1, 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, with files of voxels in it and one outside of it."""
    (tmp_path / "secret").write_bytes(SECRET.tobytes())
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "own.raw").write_bytes(OWN.tobytes())
    for k in range(4):
        (folder / f"q{k + 1:02d}.raw").write_bytes(OWN[k].tobytes())
    (folder / "link.raw").symlink_to(tmp_path / "secret")
    (folder / "way.raw").symlink_to(folder / "own.raw")
    return folder


def header(folder: Path, name: str, text: str, tail: bytes = b"") -> Path:
    path = folder / name
    path.write_bytes(text.replace("SECRET", str(folder.parent / "secret")).encode() + tail)
    return path


def values(path: Path) -> Any:
    return itk.array_from_image(itk.imread(str(path)))


LEADING_AWAY = [
    ("a.mhd", META + "ElementDataFile = SECRET\n"),
    ("a.mha", META + "ElementDataFile = SECRET\n"),
    ("a.mhd", META + "ElementDataFile = ../secret\n"),
    ("a.mhd", META + "ElementDataFile: ../secret\n"),
    ("a.mhd", META + "ElementDataFile = link.raw\n"),
    ("a.mhd", META + "ElementDataFile = ../in/../secret\n"),
    ("a.mhd", META + "nothing\nElementDataFile = LOCAL\nElementDataFile = SECRET\n"),
    ("a.mhd", META + "Comment = x\rElementDataFile = LOCAL\nElementDataFile = SECRET\n"),
    ("a.mhd", META + "ElementDataFile = LIST\n" + 4 * "SECRET\n"),
    ("a.nhdr", NRRD + "data file: SECRET\n"),
    ("a.nrrd", NRRD + "datafile: ../secret\n\n"),
    ("a.nhdr", NRRD + "Data File: link.raw\n"),
    ("a.nrrd", NRRD + "#x\rdata file: ../secret\n\n"),
    ("a.nhdr", (NRRD + "data file: ../secret\n").replace("\n", "\r")),
]


@pytest.mark.parametrize(("name", "text"), LEADING_AWAY)
def test_voxels_from_elsewhere_are_refused_that_itk_would_read(name: str, text: str, folder: Path) -> None:
    path = header(folder, name, text)
    assert np.array_equal(np.ravel(values(path))[:16], np.ravel(SECRET)[:16])  # the attack is real
    with pytest.raises(InputError, match=f"^{name}: .*NIfTI") as error:
        files_of(path)
    assert "secret" not in str(error.value)
    assert "link" not in str(error.value).replace("without links", "")


REFUSED = [
    ("a.mhd", META + "ElementDataFile = a.mhd\n"),
    ("a.mhd", META + "ElementDataFile = -\n"),
    ("a.mhd", META + "ElementDataFile = ~own.raw\n"),
    ("a.mhd", META + "ElementDataFile = x\\own.raw\n"),
    ("a.mhd", META + "ElementDataFile = C:own.raw\n"),
    ("a.mhd", META + "ElementDataFile = .\n"),
    ("a.mhd", META + "ElementDataFile = gone.raw\n"),
    ("a.mhd", META + "ElementDataFile = LISTED\n"),
    ("a.mhd", META + "ElementDataFile = LIST 2\n" + SLICES),
    ("a.mhd", META + "ElementDataFile = LIST 3\nown.raw\n"),
    ("a.mhd", META + "ElementDataFile = LIST\n" + SLICES[:-1]),
    ("a.mhd", META + "ElementDataFile = LIST\n" + SLICES[:-8]),
    ("a.mhd", META + "ElementDataFile = q%02d.raw 1 3 1\n"),
    ("a.mhd", META + "ElementDataFile = q%s.raw 1 4 1\n"),
    ("a.mhd", META + "ElementDataFile = q%n.raw 1 4 1\n"),
    ("a.mhd", META + "ElementDataFile = q%02d%02d.raw 1 4 1\n"),
    ("a.mhd", META + "ElementDataFile = q%02d.raw 1 999999999 1\n"),
    ("a.mhd", META + "ElementDataFile = q%02d.raw\n"),
    ("a.mhd", META + f"ElementDataFile = {'q' * 90}%02d.raw 1 4 1\n"),
    ("a.mhd", META + "elementdatafile = own.raw\n"),
    ("a.mhd", META + f"Comment = {'x' * 600}\nElementDataFile = own.raw\n"),
    ("a.mhd", META),
    ("x\\a.mhd", META + "ElementDataFile = own.raw\n"),
    ("a.nhdr", NRRD + "data file: -\n"),
    ("a.nhdr", NRRD + "data file: own.raw \n"),
    ("a.nhdr", NRRD + "data file:own.raw\n"),
    ("a.nhdr", NRRD + "data file:=own.raw\n"),
    ("a.nhdr", NRRD + "data file: own.raw\ndatafile: own.raw\n"),
    ("a.nhdr", NRRD + "data file: LIST\n"),
    ("a.nhdr", NRRD + "data file: LIST\nq01.raw\n\nq02.raw\n"),
    ("a.nhdr", NRRD + "data file: LIST\nq01.raw\n../secret\n"),
    ("a.nhdr", NRRD + "data file: %s 1 4 1\n"),
    ("a.nhdr", NRRD + "data file: ../q%02d.raw 1 4 1\n"),
    ("a.nhdr", NRRD + f"# {'x' * (1 << 22)}\ndata file: own.raw\n"),
    ("a.png", NRRD + "data file: ../secret\n"),
    ("a", NRRD + "data file: ../secret\n"),
]


@pytest.mark.parametrize(("name", "text"), REFUSED)
def test_a_header_that_readers_may_take_differently_is_refused(name: str, text: str, folder: Path) -> None:
    with pytest.raises(InputError, match="NIfTI"):
        files_of(header(folder, name, text))


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_voxels_are_in_regular_files(kind: str, folder: Path) -> None:
    data = folder / "odd.raw"
    if kind == "pipe":
        os.mkfifo(data)
    elif kind == "folder":
        data.mkdir()
    else:
        data.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="beside it"):
        files_of(header(folder, "a.mhd", META + "ElementDataFile = odd.raw\n"))


def test_what_has_no_end_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    for name in ("pipe.nii", "zero.nii"):
        with pytest.raises(InputError, match="neither a file nor a folder"):
            files_of(tmp_path / name)
        with pytest.raises(InputError, match="neither a file nor a folder"):
            OpenedSource(Source(tmp_path / name)).take_hashes()
    assert files_of(tmp_path / "gone.nii") == (tmp_path / "gone.nii",)


GOOD = [
    ("a.mhd", META + "ElementDataFile = own.raw\n", ("own.raw",)),
    ("a.mhd", META + "Comment =\nElementDataFile = way.raw\n", ("way.raw",)),
    ("a.mhd", (META + "ElementDataFile = own.raw\n").replace("\n", "\r\n"), ("own.raw",)),
    ("a.mha", META + "0010|0010 = a: b=c\n\nElementDataFile = LOCAL\n", ()),
    ("a.mhd", META + "ElementDataFile = q%02d.raw 1 4 1\n", tuple(SLICES.split())),
    ("a.mhd", META + "ElementDataFile = LIST\n" + SLICES, tuple(SLICES.split())),
    ("a.nhdr", NRRD + "data file: own.raw\n", ("own.raw",)),
    ("a.nhdr", (NRRD + "Data File: way.raw\n").replace("\n", "\r\n"), ("way.raw",)),
    ("a.nhdr", NRRD + "data file: q%02d.raw 1 4 1\n", tuple(SLICES.split())),
    ("a.nhdr", NRRD + "data file: LIST\n" + SLICES, tuple(SLICES.split())),
    ("a.nrrd", NRRD + "who:=data file: ../secret\n# data file: ../secret\n\n", ()),
]


@pytest.mark.parametrize(("name", "text", "data"), GOOD)
def test_files_beside_the_header_are_listed_as_itk_reads_them(name: str, text: str, data: tuple[str, ...], folder: Path) -> None:
    path = header(folder, name, text, b"" if data else OWN.tobytes())
    assert files_of(path) == (path, *(folder / each for each in data))
    assert np.array_equal(values(path), OWN)
    if not data:
        return
    seen = folder / data[0]
    seen.write_bytes(SECRET.tobytes()[: seen.stat().st_size])
    assert not np.array_equal(values(path), OWN)  # it is read from there


def test_links_to_header_and_data_in_one_folder_are_one_image(folder: Path, tmp_path: Path) -> None:
    header(folder, "a.mhd", META + "ElementDataFile = own.raw\n")
    view = tmp_path / "view"
    view.mkdir()
    for name in ("a.mhd", "own.raw"):
        (view / name).symlink_to(folder / name)
    assert files_of(view / "a.mhd") == (view / "a.mhd", view / "own.raw")
    assert np.array_equal(values(view / "a.mhd"), OWN)


@pytest.mark.parametrize("suffixes", [(".hdr", ".img"), (".hdr.gz", ".img.gz")])
@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair, nib.AnalyzeImage])
def test_both_halves_of_a_pair_are_its_files(kind: Any, suffixes: tuple[str, str], tmp_path: Path) -> None:
    image, whole = kind(OWN, np.eye(4)), tmp_path / f"scan{suffixes[1]}"
    nib.save(image, whole)
    assert files_of(whole) == files_of(tmp_path / f"scan{suffixes[0]}") == (tmp_path / f"scan{suffixes[0]}", whole)


def test_the_affine_of_spm_belongs_to_an_analyze_pair(tmp_path: Path) -> None:
    nib.save(nib.Spm99AnalyzeImage(OWN.astype(np.int16), np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / "scan.img")
    files = tuple(tmp_path / name for name in ("scan.hdr", "scan.img", "scan.mat"))
    assert files_of(tmp_path / "scan.img") == files
    assert np.array_equal(np.abs(np.diag(nib.load(files[0]).affine)), [2, 3, 4, 1])
    nib.save(nib.Nifti1Pair(OWN, np.eye(4)), tmp_path / "scan.img")
    assert files_of(tmp_path / "scan.hdr") == files[:2]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """The header of a pair in a folder of its own; its voxels are a link to a file elsewhere."""
    (tmp_path / "in").mkdir()
    nib.save(nib.Nifti1Pair(OWN, np.eye(4)), tmp_path / "in" / "scan.img")
    (tmp_path / "in" / "scan.img").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "scan.img").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "in" / "scan.hdr"


def test_a_pair_whose_voxels_are_a_link_elsewhere_is_refused(pair: Path) -> None:
    assert np.array_equal(values(pair), OWN.T)  # the attack is real
    with pytest.raises(InputError, match="without links"):
        files_of(pair)


def _gone(pair: Path) -> None:
    pair.with_suffix(".img").unlink()


def _twice(pair: Path) -> None:
    pair.with_name("scan.img.gz").write_bytes(gzip.compress(OWN.tobytes()))


def _whole(pair: Path) -> None:
    pair.write_bytes(nib.Nifti1Image(OWN, np.eye(4)).to_bytes())


@pytest.mark.parametrize("spoil", [_gone, _twice, _whole])
def test_half_a_pair_is_refused(spoil: Callable[[Path], None], pair: Path) -> None:
    spoil(pair)
    with pytest.raises(InputError, match=r"scan.hdr: .*(beside it|twice|ends in .nii)"):
        files_of(pair)


def test_voxels_without_a_header_are_refused(pair: Path) -> None:
    pair.unlink()
    with pytest.raises(InputError, match="other half, scan.hdr, is not beside it"):
        files_of(pair.with_suffix(".img"))


VISU = (
    "##TITLE=x\n##$VisuVersion=3\n##$VisuCoreFrameCount=1\n##$VisuCoreDim=2\n##$VisuCoreSize=( 2 )\n8 8\n"
    "##$VisuCoreExtent=( 2 )\n8 8\n##$VisuCoreOrientation=( 1, 9 )\n1 0 0 0 1 0 0 0 1\n##$VisuCorePosition=( 1, 3 )\n0 0 0\n"
    "##$VisuCoreFrameThickness=( 1 )\n1\n##$VisuCoreDataOffs=( 1 )\n0\n##$VisuCoreDataSlope=( 1 )\n1\n"
    "##$VisuCoreWordType=_8BIT_UNSGN_INT\n##$VisuCoreByteOrder=littleEndian\n##END=\n"
)


def test_a_file_beside_a_bruker_header_is_refused(tmp_path: Path) -> None:
    Image.fromarray(OWN.reshape(8, 8)).save(tmp_path / "scan.tif")
    assert np.array_equal(values(tmp_path / "scan.tif"), OWN.reshape(8, 8))
    (tmp_path / "visu_pars").write_text(VISU)
    for path in (tmp_path / "scan.tif", tmp_path):
        with pytest.raises(InputError, match="put the image into a folder without one"):
            files_of(path)
    moved = tmp_path / "other" / "scan.tif"
    moved.parent.mkdir()
    (tmp_path / "scan.tif").rename(moved)
    assert files_of(moved) == (moved,)


def loader(**named: Any) -> Compose:
    pipeline = Compose([LoadImage(image_only=True, **named)])
    register_dicom_reader(pipeline)
    return pipeline


@pytest.mark.parametrize("named", [{}, {"reader": "ITKReader"}, {"reader": "NibabelReader"}, {"reader": "PILReader"}], ids=str)
@pytest.mark.parametrize(("name", "text"), [LEADING_AWAY[0], LEADING_AWAY[10]])
def test_every_pipeline_refuses_them(named: dict[str, Any], name: str, text: str, folder: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        loader(**named)(str(header(folder, name, text)))
    assert isinstance(error.value.__cause__, InputError)


UNKNOWN = {
    "scan.h5": b"\x89HDF\r\n\x1a\n" + 200 * b"\0",
    "scan.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "scan.spr": b"numDim: 3\nstimFileName: ../secret\n",
    "scan": nib.Nifti1Image(OWN, np.eye(4)).to_bytes(),
    "scan.ima": b"IMGF" + 9000 * b"\0",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_formats_that_are_not_known_reach_no_reader_of_monais(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / name
    path.write_bytes(UNKNOWN[name])
    assert not is_known_format(path)
    started: list[Any] = []
    monkeypatch.setattr(itk, "imread", lambda *words, **_: started.append(words))
    monkeypatch.setattr(subprocess, "check_call", started.append)
    for named in ({}, {"reader": "PILReader"}):
        with pytest.raises(RuntimeError) as error:
            loader(**named)(str(path))
        assert str(error.value.__cause__) == (
            f"{name}: cannot be read (no format that is known): copy it again, or convert it to NIfTI."
        )
    assert started == []


class OwnReader(LoadImage().readers[0].__class__.__mro__[1]):  # type: ignore[misc]
    """A bundle's own reader for a format that is its own."""

    def verify_suffix(self, filename: Any) -> bool:
        return True

    def read(self, data: Any, **_: Any) -> Any:
        return data

    def get_data(self, img: Any) -> Any:
        return OWN, {"affine": np.eye(4), "spatial_shape": np.array(SHAPE)}


def test_a_bundles_own_reader_reads_its_own_format(folder: Path) -> None:
    (folder / "scan.own").write_bytes(b"mine")
    assert np.array_equal(loader(reader=OwnReader())(str(folder / "scan.own")), OWN)


def test_common_formats_are_known(tmp_path: Path) -> None:
    grey = Image.fromarray(OWN.reshape(8, 8))
    for name in ("a.png", "a.jpg", "a.bmp", "a.tif", "a.gif", "a.webp", "a.jp2"):
        grey.save(tmp_path / name)
        assert is_known_format(tmp_path / name), name
    for name in ("a.mha", "a.nrrd", "a.vtk", "a.nii", "a.nii.gz", "a.hdr"):
        itk.imwrite(itk.image_from_array(OWN), str(tmp_path / name))
        assert is_known_format(tmp_path / name), name
        assert np.array_equal(values(tmp_path / name), OWN)


@pytest.mark.parametrize("name", ["scan.dcm.gz", "scan.dcm", "scan"])
def test_other_files_inside_gzip_are_refused_until_they_are_unpacked(name: str, tmp_path: Path) -> None:
    (file,) = write(tmp_path / "series", Series(ORIENTATIONS["axial"]).slices()[:1]).iterdir()
    (tmp_path / name).write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(RuntimeError) as error:
        loader()(str(tmp_path / name))
    assert str(error.value.__cause__) == f"{name}: cannot be read, because it is compressed (gzip): unpack it (gunzip)."
    (tmp_path / "unpacked").write_bytes(gzip.decompress((tmp_path / name).read_bytes()))
    assert loader()(str(tmp_path / "unpacked")).ndim == 3
