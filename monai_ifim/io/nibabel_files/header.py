"""`VolumeHeader`: the header of a file that nibabel reads, before any voxel is read, and the checks that formats share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from monai_ifim.io.errors import InputError
from monai_ifim.io.geometry import Affine, is_invertible
from monai_ifim.io.image_files.compression import is_gzip
from monai_ifim.io.limits import Size
from monai_ifim.io.reading import Reading

LARGEST_DEFLATION = 1032  # largest ratio of plain to compressed bytes that gzip reaches


@dataclass(frozen=True, eq=False)
class VolumeHeader(ABC):
    """The header of a file that nibabel reads, read once. path: of the header; voxels: of the file that holds the voxels."""

    path: Path
    voxels: Path

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Numbers of voxels along the axes, as the file states them."""

    @property
    @abstractmethod
    def bytes_per_voxel(self) -> int:
        """As the file stores them."""

    @property
    @abstractmethod
    def affine(self) -> Affine:
        """Voxel index -> RAS+ mm; raises InputError if nibabel cannot read the header."""

    @abstractmethod
    def check(self) -> None:
        """Raise InputError, with the cure, for a header that is damaged or that programs read differently."""

    @abstractmethod
    def open(self) -> Any:
        """The image as nibabel gives it, its voxels not read yet; raises InputError, OSError."""

    @property
    def place(self) -> str:
        """What in the file says where its voxels lie; "assumed" if nothing does."""
        return "header"

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Sentences about what the file does not say and nibabel assumes."""
        return ()

    @property
    def distance_of_forms(self) -> float | None:
        """Distance in mm of the corners by two places that the file states; None if it states one."""
        return None

    @property
    def reading(self) -> Reading:
        """What was decided about the place and the values; raises InputError as `check`."""
        return Reading(place=self.place, place_distance_mm=self.distance_of_forms, assumptions=self.assumptions or None)

    @property
    def frames(self) -> int:
        """Number of volumes; raises InputError if nibabel cannot read the header."""
        return math.prod(self.shape[3:])

    def frame(self, number: int) -> Any:
        """One of the volumes as a NIfTI image of its own, at the same place; raises InputError, OSError."""
        values = np.asanyarray(self.open().dataobj[..., number])
        image = nib.Nifti1Image(values, self.affine, dtype=values.dtype)
        image.set_qform(self.affine, 1)
        image.set_sform(self.affine, 1)
        return image

    def size(self, one_frame: bool) -> Size:
        """Size of the image, or of one of its volumes: nibabel unpacks no byte beyond."""
        voxels = math.prod(max(0, size) for size in (self.shape[:3] if one_frame else self.shape))
        return Size(voxels, voxels * self.bytes_per_voxel)


def stated_shape(header: Any) -> tuple[int, ...]:
    """The sizes in a header of NIfTI or Analyze; empty for a number of axes that these formats do not have."""
    count = int(header["dim"][0])
    return tuple(int(size) for size in header["dim"][1 : count + 1]) if 0 <= count <= 7 else ()


def check_shape(name: str, shape: Sequence[int]) -> None:
    """Raise InputError for a shape that no image has, or of more axes than three and that of the volumes."""
    if not shape or min(shape) < 1:
        raise InputError(f"{name}: its header states a size of {tuple(shape)}: it is damaged, export the image again.")
    if len(shape) > 4 and math.prod(shape[3:]) > 1:
        raise InputError(f"{name}: {len(shape)} axes {tuple(shape)}; only 3D and 4D files are read: take one volume out of it.")


def check_steps(name: str, steps: npt.ArrayLike, shape: Sequence[int], cure: str) -> None:
    """Raise InputError unless the voxel sizes along the first three axes are above zero; an axis of one voxel needs none.

    cure: how to write the true sizes.
    """
    stated = [float(step) for step, size in zip(np.asarray(steps)[:3], shape[:3], strict=False) if size > 1]
    if not all(0 < step < math.inf for step in stated):
        said = " x ".join(f"{step:g}" for step in stated)
        raise InputError(f"{name}: its header states voxels of {said}: a size must be above zero; {cure}.")


def check_type(name: str, header: Any, code: str) -> None:
    """Raise InputError for voxels that are no grey values. header: nibabel's; code: the name of its field for the type."""
    try:
        kind = header.get_data_dtype().kind
    except Exception as error:
        stated = int(header[code])
        raise InputError(f"{name}: its voxels are of an unknown type (code {stated}): export the image again.") from error
    if kind == "c":
        raise InputError(f"{name}: its voxels are complex numbers: take their magnitude (numpy.abs) or phase first.")
    if kind == "V":
        raise InputError(f"{name}: its voxels are colours (RGB): convert the image to grey values first.")


def check_length(header: VolumeHeader) -> None:
    """Raise InputError for a file that is too short for the voxels that its header states."""
    needed, held = math.prod(header.shape) * header.bytes_per_voxel, header.voxels.stat().st_size
    if needed > held and not (needed <= held * LARGEST_DEFLATION and is_gzip(header.voxels)):
        raise InputError(
            f"{header.path.name}: its header states {needed} bytes of voxels, more than are in the file: it is cut short or "
            "damaged, copy it again."
        )


def check_affine(name: str, affine: Affine, cure: str) -> None:
    """Raise InputError for an affine that places no voxel. cure: how to give the image a true one."""
    if not is_invertible(affine):
        raise InputError(
            f"{name}: its affine is singular or not finite, so its voxels have no place: give it a true one ({cure})."
        )
