"""Fourier observers against dense matrices, scipy's normal law and the closed form Phi(SNR / sqrt 2)."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from monai_ifim.evaluation.lumpy import images as lumpy
from monai_ifim.evaluation.lumpy import observers
from monai_ifim.evaluation.lumpy.images import LumpyDataset, LumpyParameters, LumpyVolume
from monai_ifim.evaluation.lumpy.observers import LumpyObservers

Array = np.ndarray[Any, Any]

FLAT = LumpyParameters(
    shape=(9, 6), mean_lumps=8, lump_width=1.6, lesion_amplitude=1.4, lesion_width=0.9, margin=1, noise_sigma=0.8
)
SOLID = LumpyParameters(
    shape=(5, 6, 3), mean_lumps=8, lump_width=1.1, lesion_amplitude=1.2, lesion_width=0.7, margin=1, noise_sigma=0.7
)
TASKS = pytest.mark.parametrize("task", [FLAT, SOLID], ids=["2D", "3D"])


def _dense_covariance(task: LumpyParameters) -> Array:
    kernel = lumpy.noise_covariance(task).numpy()
    voxels = np.array(list(np.ndindex(*task.shape)))
    gaps = (voxels[:, None] - voxels[None]) % np.array(task.shape)
    return kernel[tuple(np.moveaxis(gaps, -1, 0))]


def _lesions(task: LumpyParameters) -> tuple[list[tuple[int, ...]], Array]:
    places = [place for place in np.ndindex(*task.shape) if lumpy.lesion_window(task)[place]]
    return places, np.stack([lumpy.lesion_template(task, place).numpy().ravel() for place in places])


def _gaussian_volumes(task: LumpyParameters, count: int, seed: int) -> list[LumpyVolume]:
    """Volumes whose background is truly Gaussian with the lumpy model's mean and covariance."""
    random = np.random.default_rng(seed)
    places, lesions = _lesions(task)
    root = np.linalg.cholesky(_dense_covariance(task))
    volumes = []
    for index in range(count):
        which = int(random.integers(len(places)))
        values = lumpy.lump_mean(task) + root @ random.standard_normal(len(root)) + (index % 2) * lesions[which]
        image = torch.from_numpy(values.reshape(tuple(task.shape)))
        volumes.append(LumpyVolume(image=image, label=index % 2, place=places[which], lumps=0))
    return volumes


@TASKS
def test_known_location_snr_is_the_dense_quadratic_form(task: LumpyParameters) -> None:
    covariance = _dense_covariance(task)
    _, lesions = _lesions(task)
    quadratic = np.einsum("ij,ji->i", lesions, np.linalg.solve(covariance, lesions.T))
    np.testing.assert_allclose(quadratic, LumpyObservers(task).snr ** 2, rtol=1e-9)


@TASKS
def test_random_location_template_solves_the_dense_system(task: LumpyParameters) -> None:
    _, lesions = _lesions(task)
    mean = lesions.mean(0)
    average = _dense_covariance(task) + 0.5 * np.cov(lesions.T, bias=True)
    found = LumpyObservers(task)
    np.testing.assert_allclose(found.mean_lesion().numpy().ravel(), mean, atol=1e-12)
    image = torch.randn(tuple(task.shape), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(found.average_covariance(image).numpy().ravel(), average @ image.numpy().ravel())
    expected = np.linalg.solve(average, mean)
    np.testing.assert_allclose(found.random_location_template().numpy().ravel(), expected, rtol=1e-6, atol=1e-9)
    assert found.random_location_snr == pytest.approx(math.sqrt(mean @ expected), rel=1e-8)


@TASKS
def test_scores_are_dense_products_and_normal_likelihood_ratios(task: LumpyParameters) -> None:
    covariance = _dense_covariance(task)
    places, lesions = _lesions(task)
    background = np.full(len(covariance), lumpy.lump_mean(task))
    found = LumpyObservers(task)
    for volume in _gaussian_volumes(task, 4, seed=1):
        x = volume.image.numpy().ravel()
        score = found.score(volume)
        template = np.linalg.solve(covariance, lesions[places.index(volume.place)])
        assert score.known_location == pytest.approx(template @ (x - background), rel=1e-8, abs=1e-9)
        absent = multivariate_normal(background, covariance).logpdf(x)
        present = [multivariate_normal(background + lesion, covariance).logpdf(x) for lesion in lesions]
        ratio = np.logaddexp.reduce(np.array(present) - absent) - math.log(len(lesions))
        assert score.scanning == pytest.approx(ratio, rel=1e-7, abs=1e-7)


@TASKS
def test_auroc_on_gaussian_data_is_the_closed_form(task: LumpyParameters) -> None:
    labels, scores = observers.observe(task, _gaussian_volumes(task, 4000, seed=2))
    found = LumpyObservers(task)
    known = observers.auroc(labels, [s.known_location for s in scores])
    expected = observers.auroc_from_snr(found.snr)
    assert 0.7 < expected < 0.99
    assert known == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 2000))

    ignorant = observers.auroc(labels, [s.random_location for s in scores])
    assert ignorant == pytest.approx(observers.auroc_from_snr(found.random_location_snr), abs=0.04)
    scanning = observers.auroc(labels, [s.scanning for s in scores])
    assert ignorant < scanning < known


def test_likelihood_ratio_averages_to_one_without_a_lesion() -> None:
    weak = LumpyParameters(shape=(9, 6), mean_lumps=8, lump_width=1.6, lesion_amplitude=0.5, lesion_width=0.9, margin=1)
    labels, scores = observers.observe(weak, _gaussian_volumes(weak, 4000, seed=3))
    ratios = np.exp([s.scanning for s, label in zip(scores, labels, strict=True) if label == 0])
    assert abs(ratios.mean() - 1) < 4 * ratios.std() / math.sqrt(len(ratios))


@pytest.mark.soak
def test_lumpy_data_reach_the_linear_observers_closed_form() -> None:
    task = LumpyParameters(shape=(15, 11, 13), mean_lumps=30, lump_width=2.0, lesion_amplitude=0.9, lesion_width=1.2)
    report = observers.observer_report(LumpyDataset(task, length=1200, seed=6))
    known = report["known_location"]
    assert known["interval"][0] - 0.01 < known["closed_form"] < known["interval"][1] + 0.01
    assert report["random_location"]["auroc"] < report["scanning"]["auroc"] < known["auroc"]
    assert report["snr"] == pytest.approx(LumpyObservers(task).snr)
    assert (report["volumes"], report["seed"], report["parameters"]["lump_width"]) == (1200, 6, 2.0)


def test_an_even_background_does_not_change_the_scores() -> None:
    found = LumpyObservers(SOLID)
    _, lesions = _lesions(SOLID)
    image = torch.full(tuple(SOLID.shape), found.mean, dtype=torch.float64)
    assert float(found.place_scores(image).abs().max()) < 1e-9
    assert len(lesions) == 3 * 4 * 1


def test_auroc_of_small_sets_and_of_the_normal_law() -> None:
    assert observers.auroc([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8]) == 1.0
    assert observers.auroc([0, 1], [0.5, 0.5]) == 0.5
    labels, scores = [0, 0, 1, 1, 1], [0.3, 0.6, 0.2, 0.6, 0.9]
    pairs = itertools.product([0.3, 0.6], [0.2, 0.6, 0.9])
    assert observers.auroc(labels, scores) == pytest.approx(sum((a < b) + 0.5 * (a == b) for a, b in pairs) / 6)
    for snr in (0.0, 0.5, 2.0, 5.0):
        assert observers.auroc_from_snr(snr) == pytest.approx(norm.cdf(snr / math.sqrt(2)), abs=1e-12)


@pytest.mark.slow
def test_interval_holds_the_estimate_and_narrows_with_data() -> None:
    random = np.random.default_rng(0)
    widths = []
    for count in (100, 1600):
        labels = np.arange(count) % 2
        scores = random.standard_normal(count) + labels
        low, high = observers.auroc_interval(labels, scores, resamples=300)
        assert low < observers.auroc(labels, scores) < high
        assert (low, high) == observers.auroc_interval(labels, scores, resamples=300)
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0] / 4, rel=0.4)
