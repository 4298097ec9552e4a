"""Random grids in the world, and preprocessing that moves an image about on them without interpolating."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import assume
from hypothesis import strategies as st

Array = npt.NDArray[Any]
CODES = [
    "".join(letters) for pairs in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*pairs)
]  # all 48
LETTERS = {"L": (-1, 0, 0), "R": (1, 0, 0), "P": (0, -1, 0), "A": (0, 1, 0), "I": (0, 0, -1), "S": (0, 0, 1)}
FARTHEST = 300.0  # mm from the origin of the world, beyond which the float32 of a NIfTI header is coarser than 3e-5 mm


@st.composite
def affines(draw: st.DrawFn) -> Array:
    """Voxel index to RAS mm: any turn, left- or right-handed, three spacings, an origin anywhere; float32 numbers."""
    quaternion = np.array(draw(st.lists(st.floats(-1, 1), min_size=4, max_size=4)))
    assume(np.linalg.norm(quaternion) > 0.1)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    spacing = np.array(draw(st.lists(st.floats(0.2, 6.0), min_size=3, max_size=3)))
    if draw(st.booleans()):
        spacing[draw(st.integers(0, 2))] *= -1  # left-handed
    affine = np.eye(4)
    affine[:3, :3] = turn[:, draw(st.permutations(range(3)))] * spacing
    affine[:3, 3] = draw(st.lists(st.floats(-FARTHEST, FARTHEST), min_size=3, max_size=3))
    return affine.astype(np.float32).astype(np.float64)


def volumes(largest: int = 9) -> st.SearchStrategy[tuple[int, int, int]]:
    """Three sizes, no two alike."""
    return st.lists(st.integers(1, largest), min_size=3, max_size=3, unique=True).map(lambda sizes: (*sizes,))  # type: ignore[arg-type,return-value]


def places(affine: Array, indices: Array) -> Array:
    """RAS mm of voxel indices [..., 3]."""
    return np.asarray(indices @ affine[:3, :3].T + affine[:3, 3])


def values_of(shape: tuple[int, ...], seed: int) -> Array:
    """Any values, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
