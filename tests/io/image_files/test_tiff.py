"""TIFF files as Pillow and tifffile read them, with tags of Photoshop and XMP, and the layouts that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from monai.transforms import Compose, LoadImage
from PIL import Image, ImageCms, TiffImagePlugin

from monai_ifim.io.dicom.reader import register_dicom_reader
from monai_ifim.io.errors import InputError

Array = npt.NDArray[Any]
RNG = np.random.default_rng(1)
GREY = RNG.integers(0, 255, (24, 20)).astype(np.uint8)
COLOUR = RNG.integers(0, 255, (24, 20, 3)).astype(np.uint8)
SHORT = RNG.integers(0, 65535, (24, 20)).astype(np.uint16)
REAL = RNG.normal(size=(24, 20)).astype(np.float32)
WIDE = np.kron(SHORT, np.ones((4, 4), np.uint16))
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>Zw00100010</x:xmpmeta>"
PHOTOSHOP = b"8BIM\x04\x04\0\0\0\0\0\x02Zw"
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pillow(
    values: Array | Image.Image, tags: dict[int, tuple[int, Any]] | None = None, **further: Any
) -> Callable[[Path], Array]:
    """A file that Pillow writes; tags: number to type and value."""

    def save(path: Path) -> Array:
        directory = TiffImagePlugin.ImageFileDirectory_v2()
        for tag, (kind, value) in (tags or {}).items():
            directory.tagtype[tag] = kind
            directory[tag] = value
        image = values if isinstance(values, Image.Image) else Image.fromarray(values)
        image.save(path, tiffinfo=directory, **further)
        return np.asarray(image)

    return save


def adobe(values: Array, **further: Any) -> Callable[[Path], Array]:
    """A file that tifffile writes."""

    def save(path: Path) -> Array:
        tifffile.imwrite(path, values, **further)
        return values

    return save


def tag(number: int, content: bytes, kind: int) -> Any:
    return [(number, kind, len(content), content, True)]


READ = {
    "plain": pillow(GREY),
    "XMP": pillow(GREY, {700: (1, XMP)}),
    "XMP of undefined type": pillow(SHORT, {700: (7, XMP)}),
    "Photoshop": pillow(GREY, {34377: (1, PHOTOSHOP)}),
    "Photoshop of undefined type": pillow(REAL, {34377: (7, PHOTOSHOP)}),
    "IPTC": pillow(GREY, {33723: (7, b"\x1c\x02\0\0")}),
    "ICC": pillow(COLOUR, icc_profile=ICC),
    "all of them": pillow(COLOUR, {700: (1, XMP), 34377: (1, PHOTOSHOP), 33723: (4, (1, 2))}, icc_profile=ICC),
    "XMP by tifffile": adobe(SHORT, extratags=tag(700, XMP, 1)),
    "XMP in tiles": adobe(WIDE, tile=(16, 16), extratags=tag(700, XMP, 7)),
    "LZW": pillow(GREY, {700: (1, XMP)}, compression="tiff_lzw"),
    "deflate": pillow(COLOUR, compression="tiff_adobe_deflate"),
    "PackBits": pillow(GREY, compression="packbits"),
    "zstd": pillow(SHORT, compression="zstd"),
    "BigTIFF": adobe(SHORT, bigtiff=True),
    "big endian": adobe(SHORT, byteorder=">"),
    "big-endian floats": adobe(REAL, byteorder=">"),
    "float32": adobe(REAL),
    "int16": adobe((SHORT.astype(int) - 32768).astype(np.int16)),
    "int32": adobe(SHORT.astype(np.int32) * -30000),
    "uint32": adobe(SHORT.astype(np.uint32) * 60000),
    "tiles of colour": adobe(np.kron(COLOUR, np.ones((4, 4, 1), np.uint8)), tile=(32, 32)),
    "bits": pillow(Image.fromarray(GREY > 100)),
    "alpha": pillow(Image.fromarray(COLOUR).convert("RGBA")),
    "grey and alpha": pillow(Image.fromarray(GREY).convert("LA")),
}


def load(path: Path, **named: Any) -> Any:
    pipeline = Compose([LoadImage(image_only=True, **named)])
    register_dicom_reader(pipeline)
    return pipeline(str(path))


def by_rows(image: Any) -> Array:
    """The values [rows, columns, samples] of an image as MONAI has it, [columns, rows, samples]."""
    return np.moveaxis(image.numpy(), 0, 1)


@pytest.mark.parametrize("name", READ)
def test_values_are_those_of_pillow_and_tifffile(name: str, tmp_path: Path) -> None:
    written = READ[name](tmp_path / "scan.tif")
    image = load(tmp_path / "scan.tif")
    assert np.array_equal(by_rows(image), written.astype(np.float32))
    theirs = np.asarray(Image.open(tmp_path / "scan.tif")).astype(np.float64)
    if name == "uint32":
        theirs %= 2**32  # which Pillow gives as int32
    assert np.array_equal(by_rows(image), theirs.astype(np.float32))
    assert set(image.meta) & {"ImageDescription", "Software", "RichTIFFIPTC"} == set()


def test_samples_in_planes_of_their_own_are_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "scan.tif", np.moveaxis(COLOUR, -1, 0), planarconfig="separate", photometric="rgb")
    assert np.array_equal(by_rows(load(tmp_path / "scan.tif")), COLOUR)


@pytest.mark.parametrize("further", [{}, {"imagej": True}, {"bigtiff": True, "compression": "zlib"}], ids=str)
def test_pages_are_the_slices_of_a_volume(further: dict[str, Any], tmp_path: Path) -> None:
    pages = np.stack([SHORT, SHORT // 2, SHORT // 3, SHORT // 5])
    tifffile.imwrite(tmp_path / "scan.tif", pages, photometric="minisblack", **further)
    assert np.array_equal(load(tmp_path / "scan.tif").numpy().T, pages)


LIKE_ITK = {
    "plain": pillow(GREY),
    "dots per inch": pillow(GREY, dpi=(300, 150)),
    "dots per cm": pillow(SHORT, resolution_unit="cm", x_resolution=40, y_resolution=20),
    "a ratio": pillow(SHORT, resolution_unit=1, x_resolution=40, y_resolution=20),
    "colour": pillow(COLOUR, dpi=(10, 10)),
    "pages": adobe(np.stack([GREY, GREY + 1]), photometric="minisblack", resolution=(50, 25), resolutionunit=2),
    "pages of colour": adobe(np.stack([COLOUR, COLOUR + 1]), photometric="rgb"),
}


@pytest.mark.parametrize("named", [{}, {"reader": "ITKReader"}, {"reader": "ITKReader", "reverse_indexing": True}], ids=str)
@pytest.mark.parametrize("name", LIKE_ITK)
def test_grid_and_axes_are_those_of_itk(name: str, named: dict[str, Any], tmp_path: Path) -> None:
    LIKE_ITK[name](tmp_path / "scan.tif")
    ours, itks = load(tmp_path / "scan.tif", **named), LoadImage(image_only=True, **named)(tmp_path / "scan.tif")
    assert np.array_equal(ours, itks)
    np.testing.assert_allclose(ours.affine, itks.affine, rtol=1e-6)
    for key in ("spatial_shape", "original_channel_dim", "spacing"):
        np.testing.assert_allclose(ours.meta[key], itks.meta[key], rtol=1e-6)


def test_a_reader_that_is_named_stays(tmp_path: Path) -> None:
    pillow(COLOUR)(tmp_path / "scan.tif")
    assert {"mode", "width", "height"} <= set(load(tmp_path / "scan.tif", reader="PILReader").meta)


REFUSED = {
    "half floats": adobe(REAL.astype(np.float16)),  # ITK reads them as integers
    "doubles": adobe(REAL.astype(np.float64)),
    "complex": adobe(REAL.astype(np.complex64)),
    "int8": adobe(GREY.astype(np.int8)),
    "two samples": adobe(np.stack([GREY, GREY], -1), photometric="minisblack", extrasamples=[0]),  # ITK drops the second
    "five samples": adobe(np.stack([GREY] * 5, -1), photometric="minisblack", planarconfig="contig", extrasamples=[0] * 4),
    "colours of 16 bits": adobe(COLOUR.astype(np.uint16) * 200, photometric="rgb"),  # Pillow keeps 8
    "a palette": pillow(Image.fromarray(COLOUR).quantize(16)),
    "CMYK": pillow(Image.fromarray(COLOUR).convert("CMYK")),
    "white is zero": adobe(GREY, photometric="miniswhite"),
    "turned": pillow(GREY, {274: (3, 6)}),
    "multiplied alpha": adobe(np.dstack([COLOUR, GREY]), photometric="rgb", extrasamples=[1]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layouts_that_programs_read_differently_are_refused_with_a_cure_that_works(name: str, tmp_path: Path) -> None:
    REFUSED[name](tmp_path / "scan.tif")
    with pytest.raises(RuntimeError) as error:
        load(tmp_path / "scan.tif")
    assert isinstance(error.value.__cause__, InputError)
    said = str(error.value.__cause__)
    assert said.startswith("scan.tif: a TIFF of a layout that programs read differently, or damaged: save it as grey values")
    assert "Image.open(...).convert('L').save(...)" in said
    try:
        grey = Image.open(tmp_path / "scan.tif").convert("L")
    except OSError:  # which Pillow does not know either
        grey = Image.fromarray(np.real(tifffile.imread(tmp_path / "scan.tif")).astype(np.float32).reshape(24, -1))
    grey.save(tmp_path / "new.tif")
    assert np.array_equal(by_rows(load(tmp_path / "new.tif")), np.asarray(grey, dtype=np.float32))


def test_pages_of_several_kinds_are_refused(tmp_path: Path) -> None:
    for name, second in (("size", GREY[:-1]), ("kind", SHORT)):
        Image.fromarray(GREY).save(tmp_path / f"{name}.tif", save_all=True, append_images=[Image.fromarray(second)])
        with pytest.raises(RuntimeError) as error:
            load(tmp_path / f"{name}.tif")
        assert "all pages alike" in str(error.value.__cause__)


@pytest.mark.parametrize("length", [9, 100, 400])
def test_a_file_that_is_cut_short_is_refused(length: int, tmp_path: Path) -> None:
    adobe(WIDE)(tmp_path / "scan.tif")
    (tmp_path / "scan.tif").write_bytes((tmp_path / "scan.tif").read_bytes()[:length])
    with pytest.raises(RuntimeError) as error:
        load(tmp_path / "scan.tif")
    assert "or damaged" in str(error.value.__cause__)
