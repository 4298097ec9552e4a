"""Written volumes as nibabel and ITK read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from monai_ifim.io import GeometryError, OutputError
from monai_ifim.io.nifti import power_below_float32, write_volume

Array = npt.NDArray[Any]
SHAPE = (5, 7, 11)


READERS_LIMIT = 1.3e-3  # nibabel takes a quaternion's squared real part below 3.6e-7 (nifti1_io: 1e-7) for half a turn


def assert_same_frame(image: Any, tolerance: float = 1e-4) -> None:
    """qform and sform agree in origin and in the direction of every axis."""
    spacing = np.array([*image.header.get_zooms(), 1.0])
    np.testing.assert_allclose(image.get_qform() / spacing, image.get_sform() / spacing, rtol=0, atol=tolerance)


def random_values(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random_turns(count: int) -> list[tuple[float, ...]]:
    vectors = np.random.default_rng(11).normal(size=(count, 3)) * 1.2
    return [tuple(vector) for vector in vectors]


def nearly_half_turns(count: int) -> list[tuple[float, ...]]:
    """Turns by 180 degrees less 1e-6 to 1e-1 radians, where a quaternion's real part vanishes."""
    rng = np.random.default_rng(12)
    axes = np.concatenate([np.eye(3), rng.normal(size=(count - 3, 3))])
    angles = np.pi - 10.0 ** -rng.integers(1, 7, size=count)
    return [tuple(vector) for vector in axes / np.linalg.norm(axes, axis=1, keepdims=True) * angles[:, None]]


@pytest.fixture(params=["any turn", "nearly half a turn"])
def affines(request: pytest.FixtureRequest, turned: Callable[..., Array]) -> list[Array]:
    vectors = random_turns(20) if request.param == "any turn" else nearly_half_turns(40)
    return [turned((0.7, 1.3, 4.1), vector, flip=i % 2 == 1) for i, vector in enumerate(vectors)]


def test_nibabel_and_itk_read_the_values_at_the_places_that_were_written(
    affines: list[Array], tmp_path: Path, read_alike: Callable[..., Any], corners_of: Callable[..., Array]
) -> None:
    for i, affine in enumerate(affines):
        values = random_values(SHAPE, i)
        write_volume(tmp_path / "map.nii.gz", values, affine)
        found = read_alike(tmp_path / "map.nii.gz")
        np.testing.assert_array_equal(found.values, values)
        np.testing.assert_allclose(found.corners, corners_of(affine, SHAPE), rtol=0, atol=1e-3)


def test_qform_and_sform_agree_and_have_codes(affines: list[Array], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tolerance = 1e-4 if "any turn" in request.node.name else READERS_LIMIT
    for affine in affines:
        write_volume(tmp_path / "map.nii.gz", random_values(SHAPE), affine)
        image = nib.load(tmp_path / "map.nii.gz")
        assert min(int(image.header["qform_code"]), int(image.header["sform_code"])) >= 1
        assert_same_frame(image, tolerance)


@pytest.mark.parametrize("cosine", [1e-5, 9e-5])
def test_qform_and_sform_agree_on_a_grid_with_a_trace_of_shear(cosine: float, tmp_path: Path) -> None:
    affine = np.diag([0.9, 0.9, 5.0, 1.0])
    affine[1, 2] = 5.0 * cosine
    write_volume(tmp_path / "map.nii.gz", random_values(SHAPE), affine)
    image = nib.load(tmp_path / "map.nii.gz")
    assert_same_frame(image)


def test_files_are_3d_float32_in_millimetres(tmp_path: Path, oblique: Array) -> None:
    write_volume(tmp_path / "map.nii.gz", random_values(SHAPE).astype(np.float64), oblique)
    header = nib.load(tmp_path / "map.nii.gz").header
    assert header.get_data_shape() == SHAPE
    assert header.get_data_dtype() == np.float32
    assert header.get_xyzt_units()[0] == "mm"
    assert (header["scl_slope"], header["scl_inter"]) in [(1, 0), (0, 0)] or np.isnan(header["scl_slope"])


def test_a_2d_map_is_written_with_a_third_axis_of_one(tmp_path: Path, oblique: Array, read_alike: Callable[..., Any]) -> None:
    values = random_values((7, 5))
    write_volume(tmp_path / "map.nii.gz", values, oblique)
    found = read_alike(tmp_path / "map.nii.gz")
    assert found.values.shape == (7, 5, 1)
    np.testing.assert_array_equal(found.values[..., 0], values)
    np.testing.assert_allclose(found.affine, oblique, rtol=0, atol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_values_that_float32_cannot_hold_are_refused_and_nothing_is_written(bad: float, tmp_path: Path) -> None:
    values = random_values(SHAPE).astype(np.float64)
    values[3, 1, 4] = bad
    with pytest.raises(OutputError, match=r"map\.nii\.gz.*NaN or infinite"):
        write_volume(tmp_path / "map.nii.gz", values, np.eye(4))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_sheared_grid_is_refused_with_the_cure(axis: int, tmp_path: Path, oblique: Array) -> None:
    affine = oblique.copy()
    affine[:3, axis] += 0.01 * affine[:3, (axis + 1) % 3]
    with pytest.raises(GeometryError, match=r"sheared.*resample"):
        write_volume(tmp_path / "map.nii.gz", random_values(SHAPE), affine)
    assert list(tmp_path.iterdir()) == []


def singular_affines() -> dict[str, Array]:
    flat, zero, unknown, parallel = (np.eye(4) for _ in range(4))
    flat[2, 2], unknown[0, 3] = 0.0, np.nan
    zero[:3, :3] = 0.0
    parallel[:3, 1] = parallel[:3, 0]
    return {"no third axis": flat, "all zero": zero, "NaN offset": unknown, "parallel axes": parallel}


@pytest.mark.parametrize("affine", singular_affines().values(), ids=singular_affines())
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_singular_or_unknown_grid_is_refused(affine: Array, tmp_path: Path) -> None:
    with pytest.raises(GeometryError, match="singular or not finite"):
        write_volume(tmp_path / "map.nii.gz", random_values(SHAPE), affine)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(9,), (3, 4, 5, 2)])
def test_maps_that_are_neither_2d_nor_3d_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="neither 2D nor 3D"):
        write_volume(tmp_path / "map.nii.gz", random_values(shape), np.eye(4))


@pytest.mark.parametrize("largest", [3e-40, 2e-300, 1e-320])
def test_a_map_far_below_float32_is_stored_as_numbers_that_float32_holds(largest: float) -> None:
    stored = np.float32(largest * 10.0 ** -power_below_float32(largest))
    assert 1e-14 < stored < 10
