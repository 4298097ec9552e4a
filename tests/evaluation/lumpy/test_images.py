"""The lumpy generator against the closed forms of shot noise, and against sums written out voxel by voxel."""

from __future__ import annotations

import itertools
import math
import os
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from monai_ifim.evaluation.lumpy import images as lumpy
from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters, draw_volume

# odd, unequal sizes: a cube would hide a mistaken axis
FLAT = LumpyParameters(
    shape=(13, 8), mean_lumps=6, lump_amplitude=1.5, lump_width=1.7, lesion_width=1.1, margin=2, noise_sigma=0.6
)
SOLID = LumpyParameters(
    shape=(7, 10, 5), mean_lumps=9, lump_amplitude=0.8, lump_width=1.3, lesion_width=0.9, margin=1, noise_sigma=0.5
)
TASKS = pytest.mark.parametrize("task", [FLAT, SOLID], ids=["2D", "3D"])


def _blob(shape: tuple[int, ...], centre: np.ndarray[Any, Any], width: float, turns: int = 3) -> np.ndarray[Any, Any]:
    """Slow wrapped Gaussian: every voxel, every image of the centre."""
    result = np.zeros(shape)
    for voxel in np.ndindex(*shape):
        for turn in itertools.product(range(-turns, turns + 1), repeat=len(shape)):
            gap = np.array(voxel) - centre + np.array(turn) * np.array(shape)
            result[voxel] += math.exp(-0.5 * float(gap @ gap) / width**2)
    return result


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (8,)}, "two or three positive sizes"),
        ({"shape": (8, 0, 8)}, "two or three positive sizes"),
        ({"mean_lumps": -1}, "mean_lumps is -1"),
        ({"mean_lumps": math.inf}, "mean_lumps is inf"),
        ({"lump_amplitude": -0.1}, "zero or more"),
        ({"lesion_amplitude": math.nan}, "zero or more"),
        ({"lump_width": 0}, "above zero"),
        ({"lesion_width": -1}, "above zero"),
        ({"noise_sigma": 0}, "above zero"),
        ({"margin": 4}, "from 0 to 2"),
        ({"margin": -1}, "from 0 to 2"),
        ({"margin": 1.5}, "whole number"),
    ],
)
def test_refuses_parameters_and_names_the_cure(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LumpyParameters(**({"shape": (9, 6), "margin": 1} | changes))


def test_parameters_are_frozen_and_hashable() -> None:
    task = LumpyParameters(shape=[9, 6], margin=1)
    assert task.shape == (9, 6)
    assert hash(task) == hash(LumpyParameters(shape=(9, 6), margin=1))
    with pytest.raises(FrozenInstanceError):
        task.margin = 0  # type: ignore[misc]


@TASKS
def test_lesion_is_the_wrapped_gaussian_at_its_place(task: LumpyParameters) -> None:
    place = tuple(size - 1 - int(task.margin) for size in task.shape)
    expected = task.lesion_amplitude * _blob(tuple(task.shape), np.array(place), task.lesion_width)
    np.testing.assert_allclose(lumpy.lesion_template(task, place).numpy(), expected, atol=1e-9)
    # the template at the origin, shifted around the torus, is the lesion anywhere
    rolled = torch.roll(lumpy.lesion_template(task), place, tuple(range(len(place))))
    torch.testing.assert_close(rolled, lumpy.lesion_template(task, place))


def test_lumps_are_the_wrapped_gaussians_at_their_places() -> None:
    places = torch.tensor([[0.2, 9.7, 4.9], [6.5, 3.1, 0.0]], dtype=torch.float64)
    expected = sum(_blob((7, 10, 5), place.numpy(), 1.3) for place in places)
    np.testing.assert_allclose(lumpy._sum_of_blobs(places, (7, 10, 5), 1.3).numpy(), expected, atol=1e-9)


def test_a_lump_wider_than_the_image_still_wraps() -> None:
    wide = lumpy._axis_profile(torch.tensor([1.3]), 4, 6.0)
    # so wide a Gaussian is flat once wrapped, and keeps its area
    torch.testing.assert_close(wide, torch.full((1, 4), 6.0 * math.sqrt(2 * math.pi) / 4, dtype=torch.float64))


@TASKS
def test_covariance_is_the_integral_over_lump_places(task: LumpyParameters) -> None:
    shape = tuple(task.shape)
    fine = 2  # steps per voxel; a Gaussian sampled this finely sums to its integral
    steps = [np.arange(0, size, 1 / fine) for size in shape]
    profiles = [lumpy._axis_profile(torch.tensor(s), n, task.lump_width).numpy() for s, n in zip(steps, shape, strict=True)]
    per_axis = [profile[:, :1].T @ profile / fine for profile in profiles]
    product = per_axis[0].reshape(-1)
    for axis in per_axis[1:]:
        product = np.multiply.outer(product, axis.reshape(-1))
    expected = task.mean_lumps / math.prod(shape) * task.lump_amplitude**2 * product
    expected[(0,) * len(shape)] += task.noise_sigma**2
    np.testing.assert_allclose(lumpy.noise_covariance(task).numpy(), expected, rtol=1e-9)


@TASKS
def test_samples_have_the_mean_and_covariance_of_the_closed_form(task: LumpyParameters) -> None:
    generator = torch.Generator().manual_seed(3)
    volumes = torch.stack([draw_volume(task, False, generator).image for _ in range(3000)]).double()
    axes = tuple(range(1, volumes.ndim))
    means = volumes.mean(axes)
    mean = lumpy.lump_mean(task)
    assert abs(float(means.mean()) - mean) < 4 * float(means.std()) / math.sqrt(len(means))

    spectrum = torch.fft.fftn(volumes - mean, dim=axes).abs() ** 2
    lagged = torch.fft.ifftn(spectrum, dim=axes).real / math.prod(task.shape)
    error = lagged.std(0) / math.sqrt(len(lagged))
    deviation = (lagged.mean(0) - lumpy.noise_covariance(task)) / error
    assert float(deviation.abs().max()) < 4.5
    # the band above is narrow: it must tell a covariance that is 20 % off
    assert float(error.flatten()[0] / lumpy.noise_covariance(task).flatten()[0]) < 0.04


def test_number_of_lumps_is_poisson() -> None:
    generator = torch.Generator().manual_seed(5)
    counts = np.array([draw_volume(FLAT, False, generator).lumps for _ in range(4000)])
    assert abs(counts.mean() - 6) < 4 * math.sqrt(6 / 4000)
    assert abs(counts.var() - 6) < 4 * math.sqrt((6 + 2 * 36) / 4000)


def test_no_lumps_leaves_white_noise() -> None:
    task = LumpyParameters(shape=(31, 33), mean_lumps=0, margin=2, noise_sigma=2.0)
    volume = draw_volume(task, False, torch.Generator().manual_seed(0))
    assert volume.lumps == 0
    assert abs(float(volume.image.std()) - 2.0) < 4 * 2.0 / math.sqrt(2 * 31 * 33)
    assert lumpy.lump_mean(task) == 0


@TASKS
def test_equal_generators_give_a_pair_that_differs_by_the_lesion(task: LumpyParameters) -> None:
    absent = draw_volume(task, False, torch.Generator().manual_seed(11))
    present = draw_volume(task, True, torch.Generator().manual_seed(11))
    assert (absent.label, present.label) == (0, 1)
    assert absent.place == present.place
    difference = present.image - absent.image
    torch.testing.assert_close(difference, lumpy.lesion_template(task, present.place).float(), atol=2e-6, rtol=0)
    assert float(difference[present.place]) == pytest.approx(task.lesion_amplitude, abs=0.01)
    assert tuple(int(i) for i in np.unravel_index(int(difference.argmax()), tuple(task.shape))) == present.place


def test_lesions_take_every_place_of_the_window_equally_often() -> None:
    window = lumpy.lesion_window(FLAT)
    assert int(window.sum()) == 9 * 4
    counts = torch.zeros(tuple(FLAT.shape))
    generator = torch.Generator().manual_seed(2)
    for _ in range(3600):
        counts[draw_volume(FLAT, True, generator).place] += 1
    assert not counts[~window].any()
    chi2 = float(((counts[window] - 100) ** 2 / 100).sum())
    assert 13 < chi2 < 70  # 35 degrees of freedom: beyond either end with chance below 0.1 %


def test_items_depend_on_seed_and_index_alone() -> None:
    dataset = LumpyDataset(FLAT, length=6, seed=4)
    forward = [dataset[i]["image"] for i in range(6)]
    backward = [LumpyDataset(FLAT, length=100, seed=4)[i]["image"] for i in reversed(range(6))]
    for one, other in zip(forward, reversed(backward), strict=True):
        assert torch.equal(one, other)
    images = [*forward, *(LumpyDataset(FLAT, length=6, seed=5)[i]["image"] for i in range(6))]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(images, 2))


def test_randomness_comes_from_the_generator_only() -> None:
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index]
    LumpyDataset(SOLID, length=2, seed=0)[1]
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # type: ignore[index]


def test_dataset_items_are_what_monai_expects() -> None:
    dataset = LumpyDataset(SOLID, length=5, seed=1)
    items = list(torch.utils.data.DataLoader(dataset, batch_size=5))[0]
    assert items["image"].shape == (5, 1, 7, 10, 5)
    assert items["image"].dtype == torch.float32
    assert items["label"].tolist() == [0, 1, 0, 1, 0]
    assert torch.equal(dataset[-1]["image"], dataset[4]["image"])
    with pytest.raises(IndexError, match="5 volumes"):
        dataset[5]
    with pytest.raises(ValueError, match="length"):
        LumpyDataset(SOLID, length=-1, seed=1)
    with pytest.raises(ValueError, match="seed"):
        LumpyDataset(SOLID, length=1, seed=-1)


def test_a_written_volume_reads_back_with_its_geometry(tmp_path: Path) -> None:
    image = torch.arange(7 * 10 * 5, dtype=torch.float32).reshape(7, 10, 5) / 3
    path = lumpy.write_image(image, tmp_path / "new" / "case.nii.gz", spacing=(1.5, 2.0, 2.5))
    read = nibabel.load(path)
    assert read.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(read.dataobj), image.numpy())
    np.testing.assert_allclose(read.affine, np.diag([1.5, 2.0, 2.5, 1.0]))
    np.testing.assert_allclose(read.get_qform(), read.get_sform())
    assert (int(read.header["qform_code"]), int(read.header["sform_code"])) == (1, 1)
    assert read.header.get_xyzt_units()[0] == "mm"
    assert [p.name for p in path.parent.iterdir()] == ["case.nii.gz"]


def test_a_flat_image_is_written_with_a_third_axis(tmp_path: Path) -> None:
    read = nibabel.load(lumpy.write_image(torch.rand(6, 9), tmp_path / "flat.nii.gz"))
    assert read.shape == (6, 9, 1)
    np.testing.assert_allclose(read.header.get_zooms(), (2, 2, 2))


def test_writing_refuses_what_no_file_can_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="end it in .nii.gz"):
        lumpy.write_image(torch.rand(4, 4), tmp_path / "case.nii")
    with pytest.raises(ValueError, match="without batch or channel"):
        lumpy.write_image(torch.rand(1, 4, 4, 4), tmp_path / "case.nii.gz")
    with pytest.raises(ValueError, match="spacing"):
        lumpy.write_image(torch.rand(4, 4, 4), tmp_path / "case.nii.gz", spacing=(1, 2))


def test_a_broken_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: object, target: object, **folders: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        lumpy.write_image(torch.rand(4, 4, 4), tmp_path / "case.nii.gz")
    assert list(tmp_path.iterdir()) == []
