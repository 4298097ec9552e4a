"""Perturbations of one image as unit directions, drawn from the registry of families.

A random direction depends on its recorded seed, the subspaces and the attributions alone. All directions are float64, on
the CPU.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from monai_ifim.core import IFIMError
from monai_ifim.evaluation.measuring.end_points import CLAIM
from monai_ifim.evaluation.measuring.families import FAMILIES, RANDOM, DrawContext, Family, families_of
from monai_ifim.evaluation.measuring.subspaces import Subspaces, project

__all__ = ["Perturbation", "PerturbationSettings", "build_perturbations", "draw_seed", "redraw"]

SAME_PART = 1e-3  # of |high|: rows orthonormal to the rounding of their dtype deviate less, another cut deviates more
ROUNDING = 64.0  # in units of the image's eps


@dataclass(frozen=True)
class PerturbationSettings:
    """Families of perturbations and their norms.

    relative_norms: grid of |d| / |x|, from 0 upwards. draws: of every random family. pixel_share: share of the pixels that an
    attribution ranks highest. families: names out of FAMILIES, by default all. Raises IFIMError for settings out of range.
    """

    relative_norms: tuple[float, ...] = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    draws: int = 4
    pixel_share: float = 0.05
    families: tuple[str, ...] = field(default_factory=lambda: tuple(FAMILIES))

    def __post_init__(self) -> None:
        """Check all, and turn sequences into tuples."""
        grid = tuple(float(norm) for norm in self.relative_norms)
        object.__setattr__(self, "relative_norms", grid)
        object.__setattr__(self, "families", tuple(self.families))
        rising = all(a < b for a, b in itertools.pairwise(grid))
        if len(grid) < 2 or grid[0] != 0.0 or not rising or not all(map(math.isfinite, grid)):
            raise IFIMError(f"relative_norms are {grid}: give 0 and then finite, strictly increasing numbers.")
        if isinstance(self.draws, bool) or self.draws != int(self.draws) or self.draws < 1:
            raise IFIMError(f"draws is {self.draws}: give a whole number from 1 on.")
        object.__setattr__(self, "draws", int(self.draws))
        if not 0.0 < self.pixel_share <= 1.0:
            raise IFIMError(f"pixel_share is {self.pixel_share}: give a number above 0 and up to 1.")
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown or len(set(self.families)) < len(self.families):
            raise IFIMError(f"families are {self.families}: name each once, out of {', '.join(FAMILIES)}.")
        if not {CLAIM.first, CLAIM.second} <= set(self.families):
            raise IFIMError(f"families lack {CLAIM.first} or {CLAIM.second}, which all comparisons are about: add both.")


@dataclass(frozen=True, eq=False)
class Perturbation:
    """A direction in which an image is perturbed.

    draw, seed: of a random family; 0 and None for the others. direction: [channel, *spatial], float64 of unit L2 norm.
    largest: L2 norm up to which the perturbation is defined, in the image's unit; infinite where there is no end.
    """

    family: str
    draw: int
    seed: int | None
    direction: Tensor
    largest: float = math.inf


def draw_seed(seed: int, family: str, draw: int) -> int:
    """Seed of one draw, 0 to 2^63 - 1; it depends on the three arguments alone, not on which others are drawn.

    Raises IFIMError for a negative seed or draw.
    """
    if seed < 0 or draw < 0:
        raise IFIMError(f"seed is {seed} and draw {draw}: give whole numbers from 0 on.")
    state = np.random.SeedSequence([seed, zlib.crc32(family.encode()), draw]).generate_state(1, np.uint64)[0]
    return int(state) >> 1


def build_perturbations(
    image: Tensor,
    high: Tensor,
    low: Tensor,
    subspaces: Subspaces,
    attributions: Mapping[str, Tensor],
    settings: PerturbationSettings,
    seed: int,
) -> list[Perturbation]:
    """All perturbations of one image, in the order of `settings.families`; families that are not defined here are left out.

    Not defined are: noise in an empty subspace, pixels of an attribution that is missing or zero everywhere, and
    the removal of a component that is zero.

    Args:
        image: [channel, *spatial], as the network sees it.
        high, low: its parts in span(subspaces.leading) and in the complement, high + low = image.
        subspaces: of this image.
        attributions: [channel, *spatial] by the names of ATTRIBUTIONS.
        settings: families and draws.
        seed: zero or more, another one for every image.

    Raises:
        IFIMError: parts that are not those of this image and these subspaces, attributions that do not fit.
    """
    _check_parts(image, high, low, subspaces)
    parts = {"high": high.detach().cpu().to(torch.float64), "low": low.detach().cpu().to(torch.float64)}
    norms = [float(torch.linalg.vector_norm(part)) for part in parts.values()]
    largest = min(norms)
    if largest <= ROUNDING * torch.finfo(high.dtype).eps * math.hypot(*norms):
        parts = {}  # nothing to take away
    context = DrawContext(subspaces, attributions, settings.pixel_share, parts)
    found: list[Perturbation] = []
    for family in (FAMILIES[name] for name in settings.families):
        for draw in range(settings.draws if family.is_random else 1):
            own = draw_seed(seed, family.name, draw) if family.is_random else None
            direction = _direction(family, context, own)
            if direction is not None:
                found.append(Perturbation(family.name, draw, own, direction, largest if family.is_bounded else math.inf))
    return found


def redraw(family: str, seed: int, subspaces: Subspaces, attributions: Mapping[str, Tensor], pixel_share: float = 0.05) -> Tensor:
    """The direction [channel, *spatial] of a random family from its recorded seed, unit L2 norm, float64.

    subspaces, attributions, pixel_share: those of `build_perturbations`; a family uses only its own. Raises IFIMError for
    a family that is not random, or not defined with these.
    """
    if family not in FAMILIES or not FAMILIES[family].is_random:
        raise IFIMError(f"{family!r} is drawn from no seed: name one of {', '.join(families_of(*RANDOM))}.")
    direction = _direction(FAMILIES[family], DrawContext(subspaces, attributions, pixel_share), seed)
    if direction is None:
        raise IFIMError(f"{family!r} is not defined here: its subspace or its attribution is missing or empty.")
    return direction


def _direction(family: Family, context: DrawContext, seed: int | None) -> Tensor | None:
    """The family's displacement scaled to unit norm; None where there is none."""
    drawn = family.draw(context, np.random.default_rng(seed or 0))  # families that are not random ignore it
    if drawn is None or not bool(drawn.any()):
        return None
    return (drawn / torch.linalg.vector_norm(drawn)).reshape(context.subspaces.shape)


def _check_parts(image: Tensor, high: Tensor, low: Tensor, subspaces: Subspaces) -> None:
    if not image.shape == high.shape == low.shape == subspaces.shape:
        raise IFIMError(
            f"image {tuple(image.shape)}, high {tuple(high.shape)}, low {tuple(low.shape)} and subspaces of "
            f"{tuple(subspaces.shape)}: all must be [channel, *spatial] of one image, without the batch axis."
        )
    flat, inside, outside = (part.detach().cpu().to(torch.float64).flatten() for part in (image, high, low))
    projected = project(subspaces.leading.flatten(1), flat)
    rounding = ROUNDING * torch.finfo(image.dtype).eps * torch.linalg.vector_norm(flat)
    missing = torch.linalg.vector_norm(flat - inside - outside)
    deviation = torch.linalg.vector_norm(inside - projected)
    if not bool(missing <= rounding) or not bool(deviation <= SAME_PART * torch.linalg.vector_norm(projected) + rounding):
        raise IFIMError(
            "high and low are not the parts of this image inside and outside span(leading): split the image by the leading "
            "eigenvectors that are kept (a decomposition of energy 1 splits it by all of them)."
        )
