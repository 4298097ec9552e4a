"""How the planes of an array are laid out on a figure: as they lie in memory, or as readers of medical images expect them.

Radiological convention: the patient's right is at the left of axial and coronal planes, the front at the left of sagittal ones.
The head, or else the front, is at the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from monai_ifim.core.errors import ImageError

__all__ = ["PlaneLayout", "affine_of", "layouts_of"]

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "S": "I", "I": "S"}
PAIRS = {"R": "RL", "L": "RL", "A": "AP", "P": "AP", "S": "SI", "I": "SI"}
NAMES = {"RL": "sagittal", "AP": "coronal", "SI": "axial"}  # of the plane across it
RAS = ("R", "A", "S")
TOP, LEFT = ("S", "A"), ("R", "A")  # sides that are at the top, and at the left


@dataclass(frozen=True)
class PlaneLayout:
    """Which array axes run down and to the right, and whether against their order in memory.

    axis: that the plane lies across, None for a 2D image. name: of the plane, empty as it lies in memory. edges: letters of the
    patient's sides at the left, right, top and bottom, empty as it lies in memory.
    """

    axis: int | None
    rows: int
    columns: int
    flips_rows: bool = False
    flips_columns: bool = False
    name: str = ""
    edges: tuple[str, ...] = ()

    def laid(self, plane: Tensor) -> Tensor:
        """A plane [first axis, second axis], in the order of memory, as [rows, columns] of the figure."""
        turned = plane if self.rows < self.columns else plane.T
        flipped = [dim for dim, flips in enumerate((self.flips_rows, self.flips_columns)) if flips]
        return turned.flip(flipped) if flipped else turned

    def place(self, point: Sequence[int], rows: int, columns: int) -> tuple[int, int]:
        """(row, column) on the figure of a voxel, for planes of so many voxels down and to the right."""
        row, column = point[self.rows], point[self.columns]
        return rows - 1 - row if self.flips_rows else row, columns - 1 - column if self.flips_columns else column

    def described(self, point: Sequence[int]) -> str:
        """What stands beside the plane: its name and place, and its sides, or the array axes."""
        cut = "" if self.axis is None else f"axis {self.axis} = {point[self.axis]}\n"
        if not self.edges:
            return f"{cut}↓ axis {self.rows}\n→ axis {self.columns}"
        left, right, top, bottom = self.edges
        name = f"{self.name}\n" if self.axis is not None else ""
        return f"{name}{cut}← {left}  {right} →\n↑ {top}  {bottom} ↓"


def layouts_of(dims: int, orientation: Sequence[str] | None) -> tuple[PlaneLayout, ...]:
    """The layout of a 2D image, or of the three planes of a volume.

    orientation: the side of the patient that each axis runs to, such as "LPS" or what nibabel's `aff2axcodes` gives; None: as the
    array lies in memory. Raises ImageError for other letters, for two of one pair, and for another number than of axes.
    """
    axes = [(None, 0, 1)] if dims == 2 else [(axis, *(other for other in range(3) if other != axis)) for axis in range(3)]
    if orientation is None:
        return tuple(PlaneLayout(axis, first, second) for axis, first, second in axes)
    letters = [str(letter).upper() for letter in orientation]
    if len(letters) != dims or not set(letters) <= set(OPPOSITE) or len({PAIRS[letter] for letter in letters}) < dims:
        given = "".join(map(str, orientation))
        raise ImageError(
            f"orientation={given!r}: give {dims} letters, for each axis the side of the patient that it runs to (R or L, A or P, "
            f"S or I), such as {'LPS'[:dims]!r}."
        )
    return tuple(_radiological(letters, axis, first, second) for axis, first, second in axes)


def affine_of(dims: int, orientation: Sequence[str] | None) -> npt.NDArray[np.float64]:
    """Voxel indices to RAS [4, 4] with voxels of size 1, for programs that place arrays in space; dims: 2 or 3.

    orientation: as of `layouts_of`, which refuses others. None: each plane lies as in memory, the first axis down and the second
    to the right, in programs that draw RAS with the left at the left and the front at the left of sagittal planes.
    """
    layouts_of(dims, orientation)
    if orientation is None:
        letters = ["P", "R", "S"] if dims == 2 else ["I", "P", "R"]
    else:
        letters = [str(letter).upper() for letter in orientation]
        letters += [letter for letter in RAS if PAIRS[letter] not in {PAIRS[given] for given in letters}]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1.0
    for axis, letter in enumerate(letters):
        row = [PAIRS[each] for each in RAS].index(PAIRS[letter])
        affine[row, axis] = 1.0 if letter in RAS else -1.0
    return affine


def _radiological(letters: Sequence[str], axis: int | None, first: int, second: int) -> PlaneLayout:
    """Head or front at the top; right or front at the left."""
    first_runs_down = PAIRS[letters[first]] == "SI" or (PAIRS[letters[first]] == "AP" and PAIRS[letters[second]] == "RL")
    rows, columns = (first, second) if first_runs_down else (second, first)
    down, right = letters[rows], letters[columns]
    flips_rows, flips_columns = down in TOP, right in LEFT
    bottom, end = (OPPOSITE[down] if flips_rows else down), (OPPOSITE[right] if flips_columns else right)
    name = "" if axis is None else NAMES[PAIRS[letters[axis]]]
    return PlaneLayout(axis, rows, columns, flips_rows, flips_columns, name, (OPPOSITE[end], end, OPPOSITE[bottom], bottom))
