"""A voxel keeps its place in the world through any preprocessing that only moves it about, and in the file that is written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import (
    BorderPadd,
    CenterSpatialCropd,
    Compose,
    DivisiblePadd,
    EnsureChannelFirstd,
    Flipd,
    LoadImaged,
    Orientationd,
    Rotate90d,
    SpatialCropd,
    SpatialPadd,
)

from monai_ifim.adapt.native import carry_to_native, native_affine, native_shape, network_affine
from monai_ifim.io import GeometryError
from monai_ifim.io.nifti import write_volume
from properties.grids import CODES, Array, affines, places, values_of, volumes

ReadITK = Callable[[Path], Any]
TENTH_OF_A_MICROMETRE = 1e-4  # mm


LOADERS = {
    "nibabel": LoadImaged("image", reader="NibabelReader"),
    "ITK": LoadImaged("image", reader="ITKReader"),
    "ITK in its own LPS": LoadImaged("image", reader="ITKReader", affine_lps_to_ras=False),
}
SIZES = st.lists(st.integers(1, 12), min_size=3, max_size=3)
AXES = st.sampled_from(((0, 1), (0, 2), (1, 2)))
SPATIAL: dict[type[Any], st.SearchStrategy[dict[str, Any]]] = {
    Orientationd: st.fixed_dictionaries({"axcodes": st.sampled_from(CODES), "labels": st.none()}),
    Flipd: st.fixed_dictionaries({"spatial_axis": st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)}),
    Rotate90d: st.fixed_dictionaries({"k": st.integers(1, 3), "spatial_axes": AXES}),
    SpatialPadd: st.fixed_dictionaries({"spatial_size": SIZES, "method": st.sampled_from(("symmetric", "end"))}),
    BorderPadd: st.fixed_dictionaries({"spatial_border": st.lists(st.integers(0, 3), min_size=6, max_size=6)}),
    DivisiblePadd: st.fixed_dictionaries({"k": st.lists(st.integers(1, 5), min_size=3, max_size=3)}),
    CenterSpatialCropd: st.fixed_dictionaries({"roi_size": SIZES}),
    SpatialCropd: st.fixed_dictionaries({"roi_start": st.just((0, 0, 0)), "roi_end": SIZES}),
}
CROPS = (CenterSpatialCropd, SpatialCropd)


@st.composite
def steps(draw: st.DrawFn) -> list[tuple[type[Any], dict[str, Any]]]:
    """Up to four spatial transforms that interpolate nothing, with their settings."""
    kinds = draw(st.lists(st.sampled_from(list(SPATIAL)), max_size=4))
    return [(kind, draw(SPATIAL[kind])) for kind in kinds]


def _grid(shape: tuple[int, ...]) -> Array:
    """All indices of a volume, [*shape, 3]."""
    return np.moveaxis(np.indices(shape), 0, -1)


def _assert_read_alike(path: Path, values: Array, truth: Array, read_itk: ReadITK) -> None:
    """Values [*shape] at the places `truth` [*shape, 3], by nibabel and by ITK."""
    ours, theirs = nib.Nifti1Image.from_filename(path), read_itk(path)
    for grid, found in ((ours.affine, ours.get_fdata()), (theirs.affine, theirs.values)):
        np.testing.assert_array_equal(found, values)
        np.testing.assert_allclose(places(grid, _grid(values.shape)), truth, rtol=0, atol=TENTH_OF_A_MICROMETRE)


@given(affines(), volumes(), steps(), st.sampled_from(list(LOADERS)), st.integers(0, 2**31))
def test_places_survive_preprocessing_its_inverse_and_the_file(
    read_itk: ReadITK,
    affine: Array,
    shape: tuple[int, int, int],
    spatial: list[tuple[type[Any], dict[str, Any]]],
    reader: str,
    seed: int,
) -> None:
    """The maps carried are the world coordinates themselves, as the network's grid has them, and a mask of what it saw."""
    with tempfile.TemporaryDirectory() as folder:
        scan, written = Path(folder) / "scan.nii", Path(folder) / "map.nii.gz"
        nib.save(nib.Nifti1Image(values_of(shape, seed), affine), scan)
        moves = [kind("image", **arguments) for kind, arguments in spatial]
        pre = Compose([LOADERS[reader], EnsureChannelFirstd("image", channel_dim="no_channel"), *moves])
        image = pre({"image": scan})["image"]
        seen = places(network_affine(image, pre), _grid(image.shape[1:]))
        maps = torch.from_numpy(np.concatenate([np.moveaxis(seen, -1, 0), np.ones((1, *image.shape[1:]))]))
        carried = carry_to_native(maps, image, pre, "image").numpy().reshape(4, *shape)
        inside, truth = carried[3] == 1, places(affine, _grid(shape))
        assert inside.all() or any(kind in CROPS for kind, _ in spatial)
        np.testing.assert_allclose(np.moveaxis(carried[:3], 0, -1)[inside], truth[inside], rtol=0, atol=TENTH_OF_A_MICROMETRE)
        values = np.where(inside, values_of(shape, seed + 1), 0)
        write_volume(written, values, native_affine(image))
        _assert_read_alike(written, values, truth, read_itk)
        assert (*native_shape(image), 1, 1)[:3] == shape


@given(affines(), st.one_of(volumes(), volumes().map(lambda sizes: sizes[:2])), st.integers(0, 2**31))
def test_a_written_volume_is_read_alike_by_nibabel_and_itk(
    read_itk: ReadITK, affine: Array, shape: tuple[int, ...], seed: int
) -> None:
    values = values_of(shape, seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.nii.gz"
        write_volume(path, values, affine)
        volume = values.reshape((*shape, 1)[:3])
        _assert_read_alike(path, volume, places(affine, _grid(volume.shape)), read_itk)
        assert np.linalg.det(nib.Nifti1Image.from_filename(path).affine) * np.linalg.det(affine) > 0
        assert [path.name for path in Path(folder).iterdir()] == ["map.nii.gz"]


@given(affines(), st.sampled_from(((0, 1), (1, 2), (2, 0))), st.floats(1e-3, 1), st.booleans())
def test_a_sheared_grid_is_never_written(affine: Array, axes: tuple[int, int], shear: float, forwards: bool) -> None:
    along, across = axes
    unit = affine[:3, across] / np.linalg.norm(affine[:3, across])
    affine[:3, along] += (1 if forwards else -1) * shear * np.linalg.norm(affine[:3, along]) * unit
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(GeometryError, match="sheared"):
            write_volume(Path(folder) / "map.nii.gz", np.zeros((2, 3, 4)), affine)
        assert not list(Path(folder).iterdir())


@given(affines(), st.integers(0, 2), st.integers(0, 3), st.sampled_from((float("nan"), float("inf"), -float("inf"))))
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_grid_with_a_number_that_is_none_is_never_written(affine: Array, row: int, column: int, bad: float) -> None:
    affine[row, column] = bad
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(GeometryError, match="singular or not finite"):
            write_volume(Path(folder) / "map.nii.gz", np.zeros((2, 3, 4)), affine)
        assert not list(Path(folder).iterdir())
