"""Planes laid out in radiological convention, against an array whose values tell where in the patient they lie."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch

from monai_ifim.core import ImageError
from monai_ifim.display.orientation import layouts_of

SHAPE = (4, 5, 6)
CODES = ["".join(letters) for axes in permutations(("RL", "AP", "SI")) for letters in product(*axes)]
SIDES = "RAS"


def coordinate(codes: str, side: str) -> torch.Tensor:
    """For each voxel how far it lies towards a side of the patient, by nibabel's axis codes."""
    affine = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), SHAPE)
    world = np.linalg.inv(affine)  # from the array of these codes to one whose axes run to R, A and S
    grid = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    values = grid @ world[:3, :3].T + world[:3, 3]
    return torch.as_tensor(values[..., SIDES.index(side)])


@pytest.mark.parametrize("codes", CODES)
def test_rows_run_from_head_or_front_and_columns_from_right_or_front(codes: str) -> None:
    assert nib.aff2axcodes(np.linalg.inv(nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), SHAPE))) == tuple(
        codes
    )
    point = (1, 3, 2)
    for layout in layouts_of(3, codes):
        assert layout.axis is not None
        for side, along, ends in (("R", 1, "RL"), ("A", None, "AP"), ("S", 0, "SI")):
            laid = layout.laid(coordinate(codes, side).select(layout.axis, point[layout.axis]))
            if float(laid.max() - laid.min()) == 0:
                assert layout.name == {"R": "sagittal", "A": "coronal", "S": "axial"}[side]
                continue
            dim = along if along is not None else (1 if layout.name == "sagittal" else 0)
            assert bool((laid.diff(dim=dim) < 0).all()), "falls from the side R, A or S"
            assert (
                (layout.edges[0], layout.edges[1]) == tuple(ends)
                if dim == 1
                else (layout.edges[2], layout.edges[3]) == tuple(ends)
            )


@pytest.mark.parametrize("codes", [None, *CODES])
def test_the_point_that_is_marked_is_the_voxel(codes: str | None) -> None:
    values, point = torch.arange(4.0 * 5 * 6).reshape(SHAPE), (1, 3, 2)
    for layout in layouts_of(3, codes):
        assert layout.axis is not None
        laid = layout.laid(values.select(layout.axis, point[layout.axis]))
        assert laid[layout.place(point, *laid.shape)] == values[point]


def test_as_in_memory_without_an_orientation() -> None:
    values = torch.arange(20.0).reshape(4, 5)
    (layout,) = layouts_of(2, None)
    assert torch.equal(layout.laid(values), values)
    assert layout.described((1, 2)) == "↓ axis 0\n→ axis 1"
    assert [layout.described((7, 8, 9)) for layout in layouts_of(3, None)][2] == "axis 2 = 9\n↓ axis 0\n→ axis 1"


def test_a_slice_of_a_scan_and_what_stands_beside_planes() -> None:
    """A radiograph whose first axis runs to the left and whose second to the feet is turned."""
    values = torch.arange(20.0).reshape(4, 5)
    (layout,) = layouts_of(2, "LI")
    assert torch.equal(layout.laid(values), values.T)
    assert layout.described((1, 2)) == "← R  L →\n↑ S  I ↓"
    assert layouts_of(3, ("R", "A", "S"))[2].described((7, 8, 9)) == "axial\naxis 2 = 9\n← R  L →\n↑ A  P ↓"
    assert layouts_of(3, "ras")[0].name == "sagittal"


@pytest.mark.parametrize(("dims", "codes"), [(3, "RA"), (3, "RAX"), (3, "RLS"), (2, "RAS"), (2, "")])
def test_orientations_that_are_none_are_refused_with_one_that_is(dims: int, codes: str) -> None:
    with pytest.raises(ImageError, match=rf"give {dims} letters.*such as '{'LPS'[:dims]}'"):
        layouts_of(dims, codes)
