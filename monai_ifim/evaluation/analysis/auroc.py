"""Macro AUROC under perturbation, with the uncertainty over images.

The AUROC is a property of a set of images, so the set is resampled. As the share of won pairs it is a bilinear form in the
number of times each image was drawn, and all resamples are one matrix product.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped, unused-ignore]

from monai_ifim.evaluation.analysis.statistics import CONFIDENCE

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

__all__ = [
    "AurocPoint",
    "Scores",
    "area_difference",
    "macro_auroc_curves",
    "read_scores",
    "resample_within_classes",
    "two_class_auroc",
    "weighted_macro_auroc",
]


@dataclass(frozen=True)
class AurocPoint:
    """Macro AUROC of `images` images at a perturbation norm relative to |x|, with its 95 % bootstrap interval.

    low and high are NaN if a class has only one image: its variation is unknown.
    """

    norm: float
    images: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Scores:
    """Class probabilities after the perturbations: values [families, norms, draws, images, classes], NaN where not measured.

    families: names. grid: relative norms, ascending. labels: [images], -1 where unknown; of independent labels [images, classes].
    """

    families: tuple[str, ...]
    grid: Array
    labels: Labels
    values: Array

    def of(self, family: str) -> Array:
        """[norms, draws, images, classes] of the draws that the family has."""
        values = self.values[self.families.index(family)]
        held = np.isfinite(values).any((0, 2, 3))
        return values[:, held] if held.any() else values

    def complete(self, scores: Array) -> Mask:
        """Images [images] with a label and finite scores everywhere in [..., images, classes]."""
        axes = (*range(scores.ndim - 2), scores.ndim - 1)
        usable: Mask = self.told & np.isfinite(scores).all(axes)
        return usable

    @property
    def told(self) -> Mask:
        """Images [images] of which a label is known."""
        told: Mask = np.asarray(self.labels >= 0)
        return told if told.ndim == 1 else np.asarray(told.any(1))

    def has_every_class(self, usable: Mask) -> bool:
        """True if the labels of the usable images are all of 0..classes-1, for two or more classes; of independent labels, if one
        at least is there with images that have it and images that do not."""
        classes, labels = self.values.shape[-1], self.labels[usable]
        if labels.ndim == 2:
            return any((labels[:, c] == 1).any() and (labels[:, c] == 0).any() for c in range(classes))
        return classes > 1 and np.array_equal(np.unique(labels), np.arange(classes))


def read_scores(measurements: pd.DataFrame) -> Scores:
    """Scores from the table of one cell; empty probability columns p00, p01, ... belong to other cells."""
    columns = sorted((name for name in measurements.columns if re.fullmatch(r"p\d{2,}", name)), key=lambda name: int(name[1:]))
    columns = [name for name in columns if measurements[name].notna().any()]
    family, families = pd.factorize(measurements["family"])
    image, images = pd.factorize(measurements["image"])
    draw, draws = pd.factorize(measurements["draw"])
    grid, norm = np.unique(measurements["relative_norm"].to_numpy(dtype=np.float64), return_inverse=True)
    values = np.full((len(families), len(grid), len(draws), len(images), len(columns)), np.nan)
    values[family, norm, draw, image] = measurements[columns].to_numpy(dtype=np.float64)
    first = measurements.drop_duplicates("image")
    truth = [f"y{name[1:]}" for name in columns]
    if truth and set(truth) <= set(first.columns) and first[truth].notna().all(axis=None):
        labels = first[truth].to_numpy(dtype=np.int64)
    else:
        labels = first["label"].to_numpy(dtype=np.int64, na_value=-1)
    return Scores(tuple(str(name) for name in families), grid, labels, values)


def weighted_macro_auroc(scores: Array, labels: Labels, weights: Array) -> Array:
    """Macro average of the one-versus-rest AUROC, [R], of scores [draws, images, classes], averaged over draws.

    labels: [images], every class 0..classes-1 being there, or of independent labels [images, classes], where a class is averaged
    over the images that have it and those that do not, and left out where there are none. weights: [R, images], how often each
    image was drawn.
    The AUROC of class c is the share of pairs of an image of c and one of another class in which the former has the higher
    score of c, equal scores counting half (Mann and Whitney 1947). NaN where a resample lacks a class.
    """
    of_classes = []
    for c in range(scores.shape[2]):
        inside = labels == c if labels.ndim == 1 else labels[:, c] == 1
        outside = ~inside if labels.ndim == 1 else labels[:, c] == 0
        if labels.ndim == 2 and not (inside.any() and outside.any()):
            continue
        one, two = scores[:, inside, c][:, :, None], scores[:, outside, c][:, None, :]
        wins = ((one > two) + 0.5 * (one == two)).mean(0)
        drawn, rest = weights[:, inside], weights[:, outside]
        pairs = drawn.sum(1) * rest.sum(1)
        of_classes.append(np.divide(((drawn @ wins) * rest).sum(1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0))
    mean: Array = np.mean(of_classes, axis=0)
    return mean


def two_class_auroc(labels: Labels, scores: Array, seed: int, resamples: int) -> tuple[float, float, float]:
    """(AUROC, low, high) of scores [images] for labels [images] of 0 and 1, with the 95 % percentile interval of resamples within
    the two; NaN where one of them has no image, and limits NaN where one has a single image."""
    if len(np.unique(labels)) < 2:
        return np.nan, np.nan, np.nan
    both = np.stack([-scores, scores], axis=1)[None]
    found = weighted_macro_auroc(both, labels, _weights(labels, seed, resamples))
    return float(found[0]), *_bounds(found[1:], labels)


def resample_within_classes(labels: Labels, seed: int, resamples: int) -> Array:
    """Bootstrap of the images within each class: how often each was drawn, [resamples, images].

    Within classes, as is usual for the AUROC, on which class frequencies have no bearing: no resample lacks a class. Of
    independent labels [images, classes] images are drawn from all, and a resample may lack one.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(labels)))
    if labels.ndim == 2:
        return generator.multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=resamples).astype(np.float64)
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        weights[:, rows] = generator.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=resamples)
    return weights


def macro_auroc_curves(measurements: pd.DataFrame, seed: int, resamples: int) -> dict[str, list[AurocPoint]]:
    """Macro AUROC with its 95 % percentile band, by family, at the norms where the images that are defined hold all classes."""
    scores = read_scores(measurements)
    curves: dict[str, list[AurocPoint]] = {}
    drawn: dict[bytes, Array] = {}  # by the images that are defined: mostly all, always
    for family in scores.families:
        points = []
        for norm, values in zip(scores.grid, scores.of(family), strict=True):
            usable = scores.complete(values)
            if scores.has_every_class(usable):
                if usable.tobytes() not in drawn:
                    drawn[usable.tobytes()] = _weights(scores.labels[usable], seed, resamples)
                found = weighted_macro_auroc(values[:, usable], scores.labels[usable], drawn[usable.tobytes()])
                points.append(
                    AurocPoint(float(norm), int(usable.sum()), float(found[0]), *_bounds(found[1:], scores.labels[usable]))
                )
        curves[family] = points
    return curves


def area_difference(
    measurements: pd.DataFrame, first: str, second: str, seed: int, resamples: int
) -> tuple[int, float, float, float]:
    """(images, difference, low, high): mean macro AUROC along the grid under `second` less that under `first`.

    Positive where `first` costs more. The images are those with all scores of both families, resampled as pairs within
    classes; low and high are the 95 % percentile interval, NaN where a class has one image. All
    NaN where the images lack a class or a family is missing.
    """
    scores = read_scores(measurements[measurements["family"].isin([first, second])])
    if first not in scores.families or second not in scores.families:
        return 0, np.nan, np.nan, np.nan
    pair = [scores.of(first), scores.of(second)]
    usable = scores.complete(pair[0]) & scores.complete(pair[1])
    images = int(usable.sum())
    if not scores.has_every_class(usable):
        return images, np.nan, np.nan, np.nan
    weights = _weights(scores.labels[usable], seed, resamples)
    curves = [[weighted_macro_auroc(values[:, usable], scores.labels[usable], weights) for values in family] for family in pair]
    area = np.trapezoid(np.array(curves), scores.grid, axis=1) / (scores.grid[-1] - scores.grid[0])
    difference = area[1] - area[0]
    return images, float(difference[0]), *_bounds(difference[1:], scores.labels[usable])


def _weights(labels: Labels, seed: int, resamples: int) -> Array:
    """The images as they are, and then their resamples: [1 + resamples, images]."""
    return np.vstack([np.ones(len(labels)), resample_within_classes(labels, seed, resamples)])


def _bounds(resampled: Array, labels: Labels) -> tuple[float, float]:
    """95 % percentile interval of values [R] resampled from images with these labels; NaN where a class has one image. Resamples
    that lack one of independent labels have no value and do not count."""
    alone = len(labels) < 2 if labels.ndim == 2 else np.bincount(labels).min() < 2
    if alone or not np.isfinite(resampled).any():
        return np.nan, np.nan
    low, high = np.nanquantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
