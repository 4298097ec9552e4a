"""Mosaics: single pictures that hold the slices of a volume side by side, of Siemens (MOSAIC) and United Imaging (VFRAME).

Neither is of the standard: how many slices there are, and where they lie, is in private elements. Places, order of slices and
number of tiles are as dcm2niix, SPM and nibabel (nipy.org/nibabel/dicom/dicom_mosaic.html) have them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.values import convert_SQ

from monai_ifim.io.dicom.csa import csa_numbers
from monai_ifim.io.dicom.forms import several
from monai_ifim.io.errors import InputError

Array = npt.NDArray[np.float64]
Values = npt.NDArray[Any]
Private = tuple[int, str, int]  # an element: group, creator of its block, number in the block

CSA_HEADER: Private = (0x0029, "SIEMENS CSA HEADER", 0x10)
SIEMENS_COUNT: Private = (0x0019, "SIEMENS MR HEADER", 0x0A)
UNITED_IMAGING_COUNT: Private = (0x0065, "Image Private Header", 0x50)
UNITED_IMAGING_SLICES: Private = (0x0065, "Image Private Header", 0x51)
COUNT, NORMAL = "NumberOfImagesInMosaic", "SliceNormalVector"  # in a CSA header
STEPS = {"SpacingBetweenSlices": "Spacing Between Slices", "SliceThickness": "Slice Thickness"}
MOST_SLICES = 2**16
SLANT = 0.01  # by which the normal may miss that of Image Orientation, whose cosines may have three decimals

# What tells that a picture may be a mosaic: the private elements are the counts and the creators of their blocks
MOSAIC_TAGS = ["ImageType", "Manufacturer", 0x00190010, 0x0019100A, 0x00650010, 0x00651050]


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Tiles of one picture, row by row from its upper left; each is a slice, and the last ones may be empty.

    across, down: number of tiles; positions: LPS mm of the first voxel of each slice [slices, 3], orientation: direction cosines
    of rows and columns [6], spacing: mm between columns and rows. slice_step: the attribute that states how far apart the slices
    are, None if each states its place. fault: why the picture cannot be taken apart, empty if it can.
    """

    across: int = 1
    down: int = 1
    positions: Array | None = None
    orientation: Array | None = None
    spacing: tuple[float, float] | None = None
    slice_step: str | None = None
    fault: str = ""

    def slices(self, picture: Values) -> Values:
        """Slices [slices, rows, columns, ...] of the picture [rows, columns, ...]; raises ValueError for one of another size."""
        count = 0 if self.positions is None else len(self.positions)
        rows, columns = picture.shape[0] // self.down, picture.shape[1] // self.across
        tiles = picture.reshape(self.down, rows, self.across, columns, *picture.shape[2:]).swapaxes(1, 2)
        return tiles.reshape(-1, rows, columns, *picture.shape[2:])[:count]


class _FaultError(Exception):
    """Why a mosaic cannot be taken apart; it quotes nothing of the header."""


def mosaic_of(header: Dataset, whole: Callable[[], Dataset]) -> Mosaic | None:
    """The mosaic that a DICOM image is; None if it is none. Raises anything that a damaged header makes pydicom raise.

    header: with MOSAIC_TAGS at least; whole: gives it with all its elements, and is called for what may be a mosaic.
    """
    kinds = {str(kind).upper() for kind in several(header.get("ImageType"))}
    resonance = str(header.get("Modality") or "MR") == "MR"
    named, grid = resonance and "MOSAIC" in kinds, resonance and "VFRAME" in kinds and _is_grid(header)
    several_frames = int(header.get("NumberOfFrames") or 1) > 1
    siemens, united = _count(header, *SIEMENS_COUNT) > 1, _count(header, *UNITED_IMAGING_COUNT) > 1
    if not (named if several_frames else named or grid or siemens or united):
        return None
    try:
        if several_frames:
            _check_frames(header)
            return None
        return _united_imaging(whole(), grid) if united or (grid and not siemens) else _siemens(whole(), named)
    except _FaultError as fault:
        return Mosaic(fault=str(fault))
    except (TypeError, ValueError, OverflowError, AttributeError):  # of a value that is none, whose text may quote it
        return Mosaic(fault="its header has other text instead of the numbers that tell how they lie")


def check_mosaic(name: str, mosaic: Mosaic | None) -> None:
    """Raise InputError for a mosaic that cannot be taken apart into its volume. name: what the message calls it."""
    if mosaic is not None and mosaic.fault:
        raise InputError(
            f"{name}: a mosaic, one picture that holds the slices of a volume side by side, and {mosaic.fault}: get the files as "
            "the scanner wrote them, with the private elements that anonymising removes, and give these, or the NIfTI file that "
            "dcm2niix makes of them."
        )


def _is_grid(header: Dataset) -> bool:
    """True for VFRAME as United Imaging says it, whose pictures state no place of their own; Siemens says it of frames, too."""
    maker = str(header.get("Manufacturer") or "").upper()
    return maker.startswith(("UIH", "UNITED IMAGING")) or ("SIEMENS" not in maker and not header.get("ImagePositionPatient"))


def _check_frames(header: Dataset) -> None:
    """Frames of one file are slices, whatever its Image Type says, unless all lie at one place: each may be a mosaic then."""
    frames = header.get("PerFrameFunctionalGroupsSequence") or ()
    own = [item.get("ImagePositionPatient") for frame in frames for item in frame.get("PlanePositionSequence") or ()]
    shared = any(group.get("PlanePositionSequence") for group in header.get("SharedFunctionalGroupsSequence") or ())
    if (shared and not own) or (len(own) > 1 and all(place == own[0] for place in own)):
        raise _FaultError("its frames lie at one place, so that each may be a slice or a mosaic")


def _siemens(header: Dataset, named: bool) -> Mosaic | None:
    """A mosaic of Siemens; None for a single tile, and, unless its Image Type names it, for a slice cut out of a mosaic."""
    stated = _csa(header)
    counts = {float(_count(header, *SIEMENS_COUNT)), *stated.get(COUNT, ())[:1]} - {0.0}
    if not counts:
        raise _FaultError(f"its header does not state how many ({COUNT}, a private element of Siemens)")
    count = int(max(counts))
    if counts != {count} or not 0 < count <= MOST_SLICES:
        raise _FaultError(f"its header does not state one number of them ({COUNT}, a private element of Siemens)")
    side = math.isqrt(count - 1) + 1
    if count == 1 or not (named or _divisible(header, side, side)):
        return None
    _check_divisible(header, side, side)
    orientation, spacing = _numbers(header, "ImageOrientationPatient", 6), _spacing(header)
    normal, (step, source) = _normal(stated, orientation), _step(header)
    # Siemens states the corner that the first slice would have if it were as large as the picture, around the same centre.
    tile = np.array([int(header.Columns), int(header.Rows)]) / side
    first = _numbers(header, "ImagePositionPatient", 3) + (tile * (side - 1) / 2 * spacing) @ orientation.reshape(2, 3)
    return Mosaic(side, side, first + np.arange(count)[:, None] * step * normal, orientation, spacing, source)


def _csa(header: Dataset) -> dict[str, tuple[float, ...]]:
    content = _private(header, *CSA_HEADER)
    if content is None:
        return {}
    try:
        return csa_numbers(bytes(content), (COUNT, NORMAL))
    except ValueError:
        raise _FaultError("the private CSA header of Siemens, which tells how they lie, is damaged") from None


def _normal(stated: Mapping[str, tuple[float, ...]], orientation: Array) -> Array:
    """Unit vector from each slice to the next: at right angles to the orientation, on the side that Siemens states."""
    normal, cross = np.array(stated.get(NORMAL, ())), np.cross(orientation[:3], orientation[3:])
    if normal.size != 3:
        raise _FaultError(
            f"its header does not state on which side of each other they lie ({NORMAL} in the CSA header of Siemens)"
        )
    along = float(normal @ cross)
    if max(abs(abs(along) - 1), abs(float(np.linalg.norm(normal)) - 1)) > SLANT:
        raise _FaultError(f"its {NORMAL} is not at right angles to its Image Orientation")
    return np.asarray(np.sign(along) * cross / np.linalg.norm(cross))


def _step(header: Dataset) -> tuple[float, str]:
    """Distance of slices in mm, and the attribute that states it; without a spacing dcm2niix takes the thickness, too."""
    for keyword, called in STEPS.items():
        step = float(header.get(keyword) or 0)
        if step > 0 and math.isfinite(step):
            return step, called
    raise _FaultError("its header does not state how far apart they are (Spacing Between Slices, Slice Thickness)")


def _united_imaging(header: Dataset, named: bool) -> Mosaic | None:
    """A mosaic of United Imaging, each of whose slices states its place; None if nothing but a number tells of slices."""
    count = _count(header, *UNITED_IMAGING_COUNT)
    items = _items(_private(header, *UNITED_IMAGING_SLICES))
    if not named and not items:
        return None
    if not 0 < count <= MOST_SLICES or len(items) != count:
        raise _FaultError("its header does not state how many and where (the private MR VFrame Sequence of United Imaging)")
    if count == 1:
        return None
    across = math.isqrt(count - 1) + 1
    down = -(-count // across)
    _check_divisible(header, across, down)
    positions = np.stack([_numbers(item, "ImagePositionPatient", 3) for item in items])
    return Mosaic(across, down, positions, _numbers(header, "ImageOrientationPatient", 6), _spacing(header))


def _divisible(header: Dataset, across: int, down: int) -> bool:
    return int(header.Columns) % across == 0 and int(header.Rows) % down == 0


def _check_divisible(header: Dataset, across: int, down: int) -> None:
    if not _divisible(header, across, down):
        size = f"{int(header.Columns)} x {int(header.Rows)} pixels"
        raise _FaultError(f"its {size} cannot be {across} x {down} equal tiles, as the number of slices that it states needs")


def _spacing(header: Dataset) -> tuple[float, float]:
    """Between columns and between rows; DICOM states rows first (PS3.3, 10.7.1.3)."""
    rows, columns = _numbers(header, "PixelSpacing", 2).tolist()
    return columns, rows


def _numbers(header: Dataset, keyword: str, count: int) -> Array:
    numbers = np.array([float(value) for value in several(header.get(keyword))])
    if numbers.size != count or not np.isfinite(numbers).all():
        raise _FaultError("its header does not state where they lie (Image Position, Image Orientation, Pixel Spacing)")
    return numbers


def _count(header: Dataset, group: int, creator: str, number: int) -> int:
    """A private element that states a number of slices; 0 if it does not."""
    try:
        return int(float(_private(header, group, creator, number) or 0))
    except (TypeError, ValueError, OverflowError):
        return 0


def _private(header: Dataset, group: int, creator: str, number: int) -> Any:
    """The value of a private element, None if it is missing."""
    try:
        return header.private_block(group, creator)[number].value
    except KeyError:
        return None


def _items(sequence: Any) -> list[Dataset]:
    """Items of a private sequence; a file that does not state its type has them as bytes (PS3.5, 6.2.2)."""
    if not isinstance(sequence, bytes):
        return list(sequence or ())
    return list(convert_SQ(sequence, is_implicit_VR=True, is_little_endian=True))
