"""Orientation, edge letters, depth and number of the slice that a view shows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from trame_slicer.views import SliceView

from monai_ifim.display.sides import edge_letters, side_text


def orientation(view: SliceView) -> str:
    """Name of the anatomical plane nearest to a view, whose plane lies along the volume's axes."""
    return nearest_plane(matrix_array(view.get_view_node().GetSliceToRAS())[:3, 2])


def nearest_plane(normal: npt.NDArray[Any]) -> str:
    """Name of the anatomical plane nearest to one of this normal (RAS)."""
    return ("Sagittal", "Coronal", "Axial")[int(np.abs(normal).argmax())]


def edges(view: SliceView) -> tuple[str, str, str, str]:
    """Edge letters at a view's left, right, top and bottom."""
    matrix = matrix_array(view.get_view_node().GetSliceToRAS())
    right, up = matrix[:3, 0], matrix[:3, 1]
    return edge_letters(-right), edge_letters(right), edge_letters(up), edge_letters(-up)


def depth(view: SliceView) -> str:
    """Position of a view's slice along its normal, for example "S 34.0 mm"."""
    normal = matrix_array(view.get_view_node().GetSliceToRAS())[:3, 2]
    axis = int(np.abs(normal).argmax())
    return side_text(view.get_slice_value() * float(np.sign(normal[axis])), axis)


def slice_number(view: SliceView) -> tuple[int, int]:
    """Number of the slice shown, from 1, and number of slices."""
    (low, high), step = view.get_slice_range(), view.get_slice_step()
    count = max(1, round((high - low) / step) + 1) if step > 0 else 1
    return min(count, max(1, round((view.get_slice_value() - low) / step) + 1)) if step > 0 else 1, count


def matrix_array(matrix: Any) -> npt.NDArray[np.float64]:
    """A vtkMatrix4x4 as an array [4, 4]."""
    return np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])
