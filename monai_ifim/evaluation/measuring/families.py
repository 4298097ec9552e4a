"""Registry of the families of perturbations: how each is drawn, what it is called, what it means, how its curve looks.

A new family is one entry of `_REGISTRY`; settings, measurements, comparisons, figures and tables read it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.measuring.subspaces import Subspaces, project

__all__ = ["FAMILIES", "DrawContext", "Family", "Kind", "Line", "families_of"]

Kind = Literal["noise", "pixels", "attenuation", "removal", "step"]
RANDOM: tuple[Kind, ...] = ("noise", "pixels")
BOUNDED: tuple[Kind, ...] = ("attenuation", "removal")


@dataclass(frozen=True)
class Line:
    """Style of a curve; color, dashes and marker each differ from those of the other curves of the same panel."""

    color: str
    dashes: str | tuple[float, tuple[float, ...]]
    marker: str
    filled: bool = True


@dataclass(frozen=True, eq=False)
class DrawContext:
    """What families draw from at one image.

    attributions: [channel, *spatial] by method. pixel_share: share of the pixels that a "pixels" family perturbs. parts: "high"
    and "low", [channel, *spatial]; only attenuation and removal need them.
    """

    subspaces: Subspaces
    attributions: Mapping[str, Tensor]
    pixel_share: float
    parts: Mapping[str, Tensor] = field(default_factory=dict)


Draw = Callable[[DrawContext, np.random.Generator], Tensor | None]


@dataclass(frozen=True, eq=False)
class Family:
    """One family of perturbations.

    kind: "noise" (random, in a subspace), "pixels" (random, in highly ranked pixels), "attenuation" (part of a component taken
    away, on the grid of norms), "removal" (all of it, one norm per image), "step" (along an eigenvector).
    draw: a displacement [channel, *spatial] of any length, or None where the family is not defined at this image.
    label: short name. meaning: one sentence. line: of its curve; None where it has no curve. attribution: the method that a
    "pixels" family needs.
    """

    name: str
    kind: Kind
    draw: Draw
    label: str
    meaning: str
    line: Line | None
    attribution: str | None = None

    @property
    def is_random(self) -> bool:
        """True if draws differ by their seeds."""
        return self.kind in RANDOM

    @property
    def is_bounded(self) -> bool:
        """True if the norm ends where the smaller of x_high and x_low is gone."""
        return self.kind in BOUNDED


def _noise_within(rows_of: Callable[[Subspaces], Tensor | None]) -> Draw:
    """Normal noise projected onto a subspace; drawn as an image, so that it does not depend on the eigenvectors' signs."""

    def draw(context: DrawContext, generator: np.random.Generator) -> Tensor | None:
        rows = rows_of(context.subspaces)
        return None if rows is None else project(rows.flatten(1), _normal(context, generator))

    return draw


def _noise_in_complement(context: DrawContext, generator: np.random.Generator) -> Tensor | None:
    leading = context.subspaces.leading.flatten(1)
    noise = _normal(context, generator)
    once = noise - project(leading, noise)
    return once - project(leading, once) if leading.shape[0] < len(noise) else None  # twice, against rounding


def _noise_in_random_subspace(context: DrawContext, generator: np.random.Generator) -> Tensor | None:
    """In a uniformly distributed subspace of the leading one's dimension."""
    noise = _normal(context, generator)
    kept = context.subspaces.leading.shape[0]
    rows = torch.linalg.qr(torch.from_numpy(generator.standard_normal((len(noise), kept)))).Q.T
    return project(rows, noise)


def _noise_in_pixels(method: str) -> Draw:
    def draw(context: DrawContext, generator: np.random.Generator) -> Tensor | None:
        attribution = context.attributions.get(method)
        if attribution is None:
            return None
        return _normal(context, generator) * _highest_pixels(attribution, context.subspaces.shape, context.pixel_share)

    return draw


def _normal(context: DrawContext, generator: np.random.Generator) -> Tensor:
    """Standard normal noise [D], float64."""
    return torch.from_numpy(generator.standard_normal(context.subspaces.shape.numel()))


def _highest_pixels(attribution: Tensor, shape: torch.Size, share: float) -> Tensor:
    """1 in all channels of the pixels of largest absolute attribution (summed over channels), 0 elsewhere: [D] float64.

    Pixels of zero attribution are never chosen; ties go to the earlier pixel. Raises IFIMError for another shape or values that
    are not finite.
    """
    if attribution.shape != shape or not bool(torch.isfinite(attribution).all()):
        raise IFIMError(f"an attribution of shape {tuple(attribution.shape)}: finite values of shape {tuple(shape)} are needed.")
    score = attribution.detach().cpu().to(torch.float64).abs().sum(0).flatten()
    count = max(1, round(share * score.numel()))
    highest = score.argsort(descending=True, stable=True)[:count]
    chosen = torch.zeros_like(score)
    chosen[highest] = (score[highest] > 0).to(score.dtype)
    return chosen.repeat(shape[0])


def _take_away(part: str) -> Draw:
    return lambda context, _: -context.parts[part] if part in context.parts else None


def _along_first_eigenvector(sign: float) -> Draw:
    def draw(context: DrawContext, _: np.random.Generator) -> Tensor | None:
        leading = context.subspaces.leading
        return sign * leading[0] if leading.shape[0] else None

    return draw


def _pixels(method: str, called: str, line: Line) -> Family:
    meaning = f"Gaussian noise in the pixels that {called} ranks highest, none elsewhere."
    return Family(f"pixels_{method}", "pixels", _noise_in_pixels(method), f"pixels: {called}", meaning, line, method)


# Colours of Okabe and Ito (2008), readable with every common colour vision deficiency; brown and grey in place of their yellow.
_REGISTRY: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "noise_high",
            "noise",
            _noise_within(lambda subspaces: subspaces.leading),
            "leading eigenspace",
            "Gaussian noise inside the leading eigenspace span(u₁ ... uₖ) of the Fisher information at this image.",
            Line("#D55E00", "solid", "o"),
        ),
        Family(
            "noise_low",
            "noise",
            _noise_in_complement,
            "complement",
            "Gaussian noise of the same norm in the orthogonal complement of that space. It is spread over far more directions "
            "than the leading eigenspace has; the random subspace controls for that. Its effect is a mean over random directions "
            "and no bound: perturbations chosen inside the complement can move the answer more than noise in the leading "
            "eigenspace does.",
            Line("#0072B2", (0, (5, 2)), "s"),
        ),
        Family(
            "noise_random",
            "noise",
            _noise_in_random_subspace,
            "random subspace",
            "Gaussian noise inside a random subspace of the same dimension k, another one for every draw.",
            Line("#000000", (0, (1, 1.5)), "x"),
        ),
        Family(
            "noise_trailing",
            "noise",
            _noise_within(lambda subspaces: subspaces.trailing),
            "trailing eigenvectors",
            "Gaussian noise inside the span of the computed eigenvectors that were not kept; absent where there are none.",
            Line("#009E73", (0, (6, 1.5, 1, 1.5)), "^"),
        ),
        Family(
            "noise_twin",
            "noise",
            _noise_within(lambda subspaces: subspaces.twin),
            "untrained twin's eigenspace",
            "Gaussian noise inside the leading eigenspace of an untrained network of the same architecture: the effect of the "
            "architecture alone.",
            Line("#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "D", filled=False),
        ),
        _pixels("integrated_gradients", "integrated gradients", Line("#E69F00", (0, (6, 1.5, 1, 1.5)), "^")),
        _pixels("saliency", "saliency", Line("#56B4E9", (0, (3, 1, 1, 1, 1, 1)), "D", filled=False)),
        _pixels("gradcam", "GradCAM", Line("#7A4B00", (0, (1, 1.5)), "x")),
        _pixels("occlusion", "occlusion", Line("#666666", (0, (8, 3)), "v", filled=False)),
        Family(
            "attenuate_high",
            "attenuation",
            _take_away("high"),
            "taking away x_high",
            "Part of x_high taken away.",
            Line("#D55E00", "solid", "o"),
        ),
        Family(
            "attenuate_low",
            "attenuation",
            _take_away("low"),
            "taking away as much of x_low",
            "A part of x_low of the same norm taken away.",
            Line("#0072B2", (0, (5, 2)), "s"),
        ),
        Family(
            "remove_high",
            "removal",
            _take_away("high"),
            "all of x_high removed",
            "x_high taken away up to the norm of the smaller of x_high and x_low.",
            None,
        ),
        Family(
            "remove_low",
            "removal",
            _take_away("low"),
            "as much of x_low removed",
            "x_low taken away up to the norm of the smaller of x_high and x_low.",
            None,
        ),
        Family(
            "step_plus",
            "step",
            _along_first_eigenvector(1.0),
            "step along +u₁",
            "A step along +u₁, towards the predicted class.",
            Line("#009E73", "solid", "^"),
        ),
        Family(
            "step_minus",
            "step",
            _along_first_eigenvector(-1.0),
            "step along \N{MINUS SIGN}u₁",
            "A step along \N{MINUS SIGN}u₁, away from the predicted class.",
            Line("#CC79A7", (0, (5, 2)), "v"),
        ),
    )
}
FAMILIES: Mapping[str, Family] = MappingProxyType(_REGISTRY)


def families_of(*kinds: Kind) -> tuple[str, ...]:
    """Names of the families of these kinds, in the order of the registry."""
    return tuple(name for name, family in FAMILIES.items() if family.kind in kinds)
