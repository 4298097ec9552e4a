"""Hotelling and ideal observers of the lumpy task: upper bounds that networks are compared with.

All know the parameters of the task. The background is modelled as Gaussian with the exact mean and covariance
of the lumpy model; on the torus that covariance is circulant, so its inverse is a division in Fourier space.

Notation: x is an image less the mean background, s_l the lesion at place l, K the covariance of background and noise,
w_l = K^-1 s_l, and SNR^2 = s_l^T K^-1 s_l, which is the same for all l.

Source: H. H. Barrett and K. J. Myers, Foundations of Image Science (Wiley, 2004), chapter 13: ideal observer,
Hotelling observer, signals known exactly and signals that vary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from monai_ifim.evaluation.lumpy.images import (
    LumpyDataset,
    LumpyParameters,
    LumpyVolume,
    lesion_template,
    lesion_window,
    lump_mean,
    noise_covariance,
)

Array = npt.NDArray[np.float64]

__all__ = [
    "LumpyObservers",
    "ObserverScores",
    "auroc",
    "auroc_from_snr",
    "auroc_interval",
    "observe",
    "observer_report",
]


def auroc_from_snr(snr: float) -> float:
    """Area under the ROC curve of a normal statistic with equal variances: Phi(SNR / sqrt 2).

    >>> auroc_from_snr(0.0)
    0.5
    """
    return 0.5 * (1.0 + math.erf(snr / 2.0))


def auroc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Area under the ROC curve of ``scores`` ``[n]`` for ``labels`` ``[n]`` in {0, 1}, ties counting one half."""
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped, unused-ignore]

    return float(roc_auc_score(np.asarray(labels), np.asarray(scores)))


def auroc_interval(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the AUROC; the two classes are resampled separately.

    Args:
        labels: ``[n]`` in {0, 1}.
        scores: ``[n]``.
        resamples: number of bootstrap samples.
        seed: of the resampling.
    """
    from scipy.stats import bootstrap  # type: ignore[import-untyped, unused-ignore]

    truth, values = np.asarray(labels), np.asarray(scores)
    absent, present = values[truth == 0], values[truth == 1]
    classes = np.concatenate([np.zeros(len(absent)), np.ones(len(present))])

    def area(first: Array, second: Array) -> float:
        return auroc(classes, np.concatenate([first, second]))

    found = bootstrap(
        (absent, present),
        area,
        vectorized=False,
        n_resamples=resamples,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class ObserverScores:
    """Test statistics of one image; larger speaks for the lesion.

    Args:
        known_location: Hotelling observer told the place, w_l^T x. An image without a lesion is tested at a place
            drawn from the same law.
        random_location: Hotelling observer not told the place: one fixed linear template.
        scanning: log of the mean likelihood ratio over all places; the ideal observer where the background is Gaussian.
    """

    known_location: float
    random_location: float
    scanning: float


class LumpyObservers:
    """Templates of the observers for one lumpy task; float64 throughout.

    Args:
        parameters: of the task.
    """

    def __init__(self, parameters: LumpyParameters) -> None:
        self.parameters = parameters
        self._shape = tuple(parameters.shape)
        self._axes = tuple(range(len(self._shape)))
        self.mean = lump_mean(parameters)
        self._lesion = torch.fft.rfftn(lesion_template(parameters))
        # eigenvalues of K; rounding must not take a lump power of nearly zero below the noise's own
        power = torch.fft.rfftn(noise_covariance(parameters)).real
        self._power = power.clamp_min(parameters.noise_sigma**2 * (1 - 1e-9))
        self._window = lesion_window(parameters)
        self._places = int(self._window.sum())
        self._random_template: Tensor | None = None

    def _filter(self, image: Tensor, response: Tensor) -> Tensor:
        filtered: Tensor = torch.fft.irfftn(torch.fft.rfftn(image) * response, s=self._shape, dim=self._axes)
        return filtered

    def _at_places(self, weights: Tensor) -> Tensor:
        """Sum of lesions, the one at l times ``weights[l]``."""
        return self._filter(weights, self._lesion)

    @property
    def snr(self) -> float:
        """Detectability of a lesion at a known place, sqrt(s^T K^-1 s); no Gaussian background is needed for it."""
        template = torch.fft.irfftn(self._lesion / self._power, s=self._shape, dim=self._axes)
        return math.sqrt(float((template * lesion_template(self.parameters)).sum()))

    @property
    def random_location_snr(self) -> float:
        """SNR of the Hotelling observer that is not told the place: sqrt(m^T Kbar^-1 m), m the mean lesion."""
        return math.sqrt(float((self.random_location_template() * self.mean_lesion()).sum()))

    def mean_lesion(self) -> Tensor:
        """Average of the lesion over its places: ``[*shape]``, grey values."""
        return self._at_places(self._window.to(torch.float64) / self._places)

    def average_covariance(self, image: Tensor) -> Tensor:
        """Kbar times an image ``[*shape]``: K plus half the covariance of the lesion over its places.

        Only images with a lesion carry the second part, and the Hotelling observer averages both classes' covariance.
        """
        mean = self.mean_lesion()
        correlation = self._filter(image, self._lesion.conj())
        second_moment = self._at_places(correlation * self._window / self._places)
        return self._filter(image, self._power) + 0.5 * (second_moment - mean * (mean * image).sum())

    def random_location_template(self) -> Tensor:
        """Hotelling template Kbar^-1 m for a lesion at an unknown place: ``[*shape]``, kept once computed.

        Raises:
            RuntimeError: where the conjugate gradients do not converge.
        """
        if self._random_template is not None:
            return self._random_template
        from scipy.sparse.linalg import LinearOperator, cg  # type: ignore[import-untyped, unused-ignore]

        size = math.prod(self._shape)

        def covariance(flat: Array) -> Array:
            return self.average_covariance(torch.from_numpy(flat).reshape(self._shape)).numpy().ravel()

        def precondition(flat: Array) -> Array:
            return self._filter(torch.from_numpy(flat).reshape(self._shape), 1 / self._power).numpy().ravel()

        operator = LinearOperator((size, size), matvec=covariance, dtype=np.float64)
        inverse = LinearOperator((size, size), matvec=precondition, dtype=np.float64)
        solution, failure = cg(operator, self.mean_lesion().numpy().ravel(), rtol=1e-10, M=inverse)
        if failure:
            raise RuntimeError(f"conjugate gradients did not converge (code {failure}); the noise may be too weak")
        self._random_template = torch.from_numpy(solution).reshape(self._shape)
        return self._random_template

    def place_scores(self, image: Tensor) -> Tensor:
        """w_l^T x for every place l at once: ``[*shape]``, places outside the window included."""
        return self._filter(image.to(torch.float64) - self.mean, self._lesion.conj() / self._power)

    def score(self, volume: LumpyVolume) -> ObserverScores:
        """Statistics of all observers for one volume."""
        at_place = self.place_scores(volume.image)
        log_ratio = at_place[self._window] - 0.5 * self.snr**2
        centred = volume.image.to(torch.float64) - self.mean
        return ObserverScores(
            known_location=float(at_place[volume.place]),
            random_location=float((self.random_location_template() * centred).sum()),
            scanning=float(torch.logsumexp(log_ratio, 0)) - math.log(self._places),
        )


def observe(parameters: LumpyParameters, volumes: Iterable[LumpyVolume]) -> tuple[list[int], list[ObserverScores]]:
    """Labels and observer statistics of many volumes."""
    observers = LumpyObservers(parameters)
    labels: list[int] = []
    scores: list[ObserverScores] = []
    for volume in volumes:
        labels.append(volume.label)
        scores.append(observers.score(volume))
    return labels, scores


def observer_report(dataset: LumpyDataset) -> dict[str, Any]:
    """AUROC of each observer on a test set with its 95 % bootstrap interval, and the values that Gaussian theory predicts.

    Returns:
        Plain data: number of volumes, seed, SNR, and per observer ``auroc`` and ``interval``; for the two linear
        observers also ``closed_form``, Phi(SNR / sqrt 2).
    """
    labels, scores = observe(dataset.parameters, (dataset.volume(i) for i in range(len(dataset))))
    observers = LumpyObservers(dataset.parameters)
    report: dict[str, Any] = {"volumes": len(labels), "seed": dataset.seed, "snr": observers.snr}
    report["parameters"] = asdict(dataset.parameters)
    for name in ("known_location", "random_location", "scanning"):
        values = [float(getattr(score, name)) for score in scores]
        report[name] = {"auroc": auroc(labels, values), "interval": list(auroc_interval(labels, values))}
    report["known_location"]["closed_form"] = auroc_from_snr(observers.snr)
    report["random_location"]["closed_form"] = auroc_from_snr(observers.random_location_snr)
    return report
