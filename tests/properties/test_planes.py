"""Pictures of a volume: each pixel is the voxel that its place and the letters at the edges say; frames for DICOM likewise."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from monai_ifim.io.geometry import VIEWS, cut, dicom_frames
from monai_ifim.io.layers import Layer
from monai_ifim.io.planes import LARGEST_SIDE, CasePlanes, cut_planes, read_planes, write_planes
from properties.grids import LETTERS, Array, affines, places, values_of, volumes

LPS_FROM_RAS = np.array([-1.0, -1.0, 1.0])


def _towards(letters: str) -> Array:
    """One direction a letter."""
    return np.array([LETTERS[letter] for letter in letters], dtype=float)


@given(affines(), volumes(), st.sampled_from(VIEWS), st.integers(0, 8))
def test_pixels_are_voxels_and_the_letters_say_where_they_lead(
    affine: Array, shape: tuple[int, int, int], view: str, index: int
) -> None:
    """A volume of voxel numbers, so that the picture itself says which voxel each pixel shows."""
    chosen = cut(affine, view)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    slice_ = index % shape[chosen.normal]
    picture = chosen.plane(numbers, slice_)
    indices = np.stack(np.unravel_index(picture, shape), axis=-1)
    assert picture.shape == (shape[chosen.rows], shape[chosen.columns])
    assert len(np.unique(picture)) == picture.size
    assert (indices[..., chosen.normal] == slice_).all()
    world = places(affine, indices)
    left, right, top, bottom = (_towards(letters) for letters in chosen.edges)
    np.testing.assert_array_equal(left, -right)
    np.testing.assert_array_equal(top, -bottom)
    for steps, spacing, end in (
        (np.diff(world, axis=1), chosen.spacing[1], right),
        (np.diff(world, axis=0), chosen.spacing[0], bottom),
    ):
        np.testing.assert_allclose(np.linalg.norm(steps, axis=-1), spacing, rtol=1e-9)
        along = steps @ end.T / spacing
        assert (along > 0.38).all()  # each letter names a real part of the way
        assert (np.diff(along, axis=-1) <= 1e-9).all()  # the main one first
        assert (
            np.linalg.norm(steps / spacing, axis=-1) ** 2 - (along**2).sum(axis=-1) < 2 * 0.39**2
        ).all()  # and none is missing


@given(affines(), st.one_of(volumes(), volumes().map(lambda sizes: sizes[:2])), st.integers(0, 2**31), st.data())
def test_a_cut_shows_the_voxels_through_its_point_within_their_window(
    affine: Array, shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    index = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    values = values_of(shape, seed)
    scale = data.draw(st.sampled_from((1.0, 1e-30)))
    found = cut_planes([Layer("high", values, (-1.0, 1.5), "unit", scale)], affine, index)
    voxel, volume = np.array((*index, 0)[:3]), values.reshape((*shape, 1)[:3])
    point = places(affine, voxel)
    np.testing.assert_allclose(found.point, point, rtol=0, atol=1e-9)
    assert found.maps[0].window == (-scale, 1.5 * scale)
    flat = [view for view in VIEWS if volume.shape[cut(affine, view).normal] == 1]
    assert [plane.view for plane in found.maps[0].planes] == (flat[:1] or list(VIEWS))
    for plane in found.maps[0].planes:
        chosen = cut(affine, plane.view)
        row, column = (
            size - 1 - voxel[axis] if flipped else voxel[axis]
            for axis, flipped, size in zip((chosen.rows, chosen.columns), chosen.flips, plane.values.shape, strict=True)
        )
        shade = 255 * np.clip((float(volume[tuple(voxel)]) + 1.0) / 2.5, 0, 1)
        assert abs(int(plane.values[row, column]) - shade) <= 0.5 + 1e-9
        normal = np.cross(affine[:3, chosen.rows], affine[:3, chosen.columns])
        assert np.isclose(abs(plane.offset), abs(point @ normal) / np.linalg.norm(normal), rtol=0, atol=1e-3)


@given(affines(), st.integers(2, 700), st.integers(2, 9), st.booleans())
def test_a_large_picture_is_made_smaller_and_keeps_its_extent(affine: Array, long: int, short: int, upright: bool) -> None:
    shape = (long, short, 1) if upright else (short, long, 1)
    grey = Layer("low", np.full(shape, 0.25, dtype=np.float32), (0.0, 1.0), "unit")
    (plane,) = cut_planes([grey], affine, (0, 0, 0)).maps[0].planes
    chosen = cut(affine, plane.view)
    assert max(plane.values.shape) == min(max(shape), LARGEST_SIDE)
    assert set(np.unique(plane.values)) == {64}
    extent = [shape[chosen.rows] * chosen.spacing[0], shape[chosen.columns] * chosen.spacing[1]]
    np.testing.assert_allclose(np.multiply(plane.values.shape, plane.spacing), extent)


@given(affines(), volumes(), st.integers(0, 2**31), st.text(max_size=20), st.booleans())
def test_planes_come_back_as_they_were_written(
    affine: Array, shape: tuple[int, int, int], seed: int, unit: str, photograph: bool
) -> None:
    layers = [Layer(name, values_of(shape, seed + i), (-0.5, 1.0 + i), unit) for i, name in enumerate(("source", "high"))]
    planes = cut_planes(layers, affine, (0, 0, 0), photograph)
    with tempfile.TemporaryDirectory() as folder:
        write_planes(Path(folder) / "planes.npz", planes)
        _assert_same(read_planes(Path(folder) / "planes.npz"), planes)


def _assert_same(found: CasePlanes, expected: CasePlanes) -> None:
    assert found.point == expected.point
    for one, other in zip(found.maps, expected.maps, strict=True):
        assert (one.kind, one.window, one.unit) == (other.kind, other.window, other.unit)
        for mine, theirs in zip(one.planes, other.planes, strict=True):
            assert (mine.view, mine.spacing, mine.edges, mine.offset) == (
                theirs.view,
                theirs.spacing,
                theirs.edges,
                theirs.offset,
            )
            np.testing.assert_array_equal(mine.values, theirs.values)


@given(affines(), volumes(), affines())
def test_dicom_frames_keep_every_voxel_at_its_place(affine: Array, shape: tuple[int, int, int], wanted: Array) -> None:
    numbers = np.arange(np.prod(shape)).reshape(shape)
    axes = wanted[:3, :2] / np.linalg.norm(wanted[:3, :2], axis=0)
    frames, lps = dicom_frames(numbers, affine, np.concatenate([axes[:, 0], axes[:, 1]]))
    indices = np.stack(np.unravel_index(frames, shape), axis=-1)
    world = np.moveaxis(np.indices(frames.shape), 0, -1) @ lps[:3, :3].T + lps[:3, 3]
    np.testing.assert_allclose(world * LPS_FROM_RAS, places(affine, indices), rtol=0, atol=1e-9)
    slices, rows, columns = lps[:3, :3].T
    assert np.cross(columns, rows) @ slices > 0  # right-handed: slices follow each other along rows x columns
    assert columns @ axes[:, 0] > 0
    assert rows @ axes[:, 1] > 0
