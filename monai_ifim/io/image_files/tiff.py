"""`TiffReader`: TIFF files for MONAI's LoadImage, decoded by Pillow, where their values are certain.

ITK through MONAI fails on XMP and Photoshop tags, and reads some layouts wrongly without a word: tiles and bits as RGBA of 8
bits, half floats as integers, the first of several samples alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import itk
import numpy as np
import numpy.typing as npt
from monai.data import ITKReader
from monai.utils import ensure_tuple
from PIL import TiffImagePlugin
from PIL.ExifTags import Base as Tag

from monai_ifim.io.errors import InputError
from monai_ifim.io.image_files.guard import Refusal

BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
OTHER_READERS = (".png", ".jpg", ".jpeg", ".bmp", ".nii", ".nii.gz", ".npy", ".npz")  # which MONAI chooses by these names
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # SampleFormat (TIFF 6.0, section 19)
MIN_IS_BLACK, RGB, YCBCR = 1, 2, 6  # PhotometricInterpretation
# Pillow's modes that hold a sample as it is in the file: bits and formats of it.
EXACT = {
    "1": {(1, UNSIGNED)},
    "L": {(8, UNSIGNED)},
    "LA": {(8, UNSIGNED)},
    "RGB": {(8, UNSIGNED)},
    "RGBA": {(8, UNSIGNED)},
    "I;16": {(16, UNSIGNED)},
    "I;16B": {(16, UNSIGNED)},
    "I": {(16, SIGNED), (32, UNSIGNED), (32, SIGNED)},
    "F": {(32, FLOAT)},
}
WRAPPED = (np.uint8, np.int16, np.uint16, np.float32)  # types that ITK's images have in Python; others become float64
MILLIMETRES = {2: 25.4, 3: 10.0}  # in an inch, in a centimetre (ResolutionUnit)


class TiffReader(ITKReader):
    """Reads TIFF files as ITKReader does, with the same axes and spacing, but no text of their tags; arguments as ITKReader.

    Several pages of one kind are the slices of a volume. LoadImage raises InputError, with the cure, for a layout whose values
    programs read differently.
    """

    def verify_suffix(self, filename: Sequence[PathLike[str]] | PathLike[str] | str) -> bool:
        """True if all the files are TIFF, by their content."""
        return all(_is_tiff(Path(name)) for name in ensure_tuple(filename))

    def read(self, data: Sequence[PathLike[str]] | PathLike[str] | str, **kwargs: Any) -> Any:
        """ITK images, or a `Refusal`; raises OSError for other files, so that LoadImage tries its next reader."""
        if not self.verify_suffix(data):
            raise OSError("not TIFF.")
        try:
            images = [_image(Path(name)) for name in ensure_tuple(data)]
        except InputError as error:
            return Refusal(error)
        return images if len(images) > 1 else images[0]

    def get_data(self, img: Any) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """As ITKReader; raises the InputError of a refusal."""
        if isinstance(img, Refusal):
            raise img.error
        values, meta = super().get_data(img)
        return values, meta


def _is_tiff(path: Path) -> bool:
    if path.name.lower().endswith(OTHER_READERS) or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) in BEGINNINGS


def _image(path: Path) -> Any:
    """The ITK image; raises InputError for pages of other layouts than EXACT."""
    pages: list[npt.NDArray[Any]] = []
    try:
        with path.open("rb") as file, TiffImagePlugin.TiffImageFile(file, str(path)) as picture:
            first, spacing = _layout(picture), _spacing(picture.tag_v2)
            for page in range(picture.n_frames):
                picture.seek(page)
                if first is None or _layout(picture) != first:
                    raise _inexact(path)
                pages.append(_values(picture))
    except InputError:
        raise
    except Exception:  # Pillow raises many types for a layout that it does not know, and for damage; their text may quote tags
        raise _inexact(path) from None
    values = pages[0] if len(pages) == 1 else np.stack(pages)
    vector = pages[0].ndim == 3
    image = itk.image_from_array(np.ascontiguousarray(values), is_vector=vector)
    image.SetSpacing([*spacing, 1.0][: values.ndim - vector])
    return image


def _layout(picture: TiffImagePlugin.TiffImageFile) -> tuple[Any, ...] | None:
    """Mode and size of the page, None if Pillow or other programs would not give its samples as they are in the file."""
    tags, mode = picture.tag_v2, picture.mode
    bits = set(tags.get(Tag.BitsPerSample, (1,)))
    formats = set(tags.get(Tag.SampleFormat, (UNSIGNED,)))
    samples, bands = tags.get(Tag.SamplesPerPixel, 1), len(picture.getbands())
    colours = {RGB, YCBCR} if mode == "RGB" else {RGB} if mode == "RGBA" else {MIN_IS_BLACK}
    exact = len(bits) == len(formats) == 1 and (*bits, *formats) in EXACT.get(mode, set())
    mixed = 1 in tags.get(Tag.ExtraSamples, ())  # colours multiplied by their alpha, which Pillow divides again
    turned = tags.get(Tag.Orientation, 1) != 1
    if not exact or mixed or turned or samples != bands or tags.get(Tag.PhotometricInterpretation) not in colours:
        return None
    return mode, picture.size, *bits, *formats


def _values(picture: TiffImagePlugin.TiffImageFile) -> npt.NDArray[Any]:
    """The samples of the page [rows, columns] or [rows, columns, samples]."""
    values = np.array(picture)
    if picture.mode == "1":
        return values.astype(np.uint8)
    if values.dtype == np.int32 and UNSIGNED in picture.tag_v2.get(Tag.SampleFormat, (UNSIGNED,)):
        values = values.view(np.uint32)
    values = values.astype(values.dtype.newbyteorder("="))
    return values if values.dtype in WRAPPED else values.astype(np.float64)


def _spacing(tags: TiffImagePlugin.ImageFileDirectory_v2) -> tuple[float, float]:
    """Millimetres between columns and rows, as ITK takes them from the resolution; 1 if that is not stated with its unit."""
    unit = MILLIMETRES.get(tags.get(Tag.ResolutionUnit, 2))
    counts = [float(tags.get(tag, 0)) for tag in (Tag.XResolution, Tag.YResolution)]
    if unit is None or not all(0 < count < float("inf") for count in counts):
        return 1.0, 1.0
    return unit / counts[0], unit / counts[1]


def _inexact(path: Path) -> InputError:
    return InputError(
        f"{path.name}: a TIFF of a layout that programs read differently, or damaged: save it as grey values of 8 or 16 bits, as "
        "float32 or as RGB of 8 bits, upright, with all pages alike (Pillow: Image.open(...).convert('L').save(...))."
    )
