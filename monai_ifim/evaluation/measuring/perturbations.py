"""Perturbations of one image, each a unit direction: noise inside and outside subspaces, removal of components, steps.

A random direction follows from its recorded seed, the subspaces and the attributions alone. All directions are float64, on
the CPU.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from monai_ifim.core import Decomposition, IFIMError
from monai_ifim.core.spectrum import check_selection
from monai_ifim.evaluation.measuring.attributions import ATTRIBUTIONS

__all__ = [
    "FAMILIES",
    "Perturbation",
    "PerturbationSettings",
    "Subspaces",
    "build_perturbations",
    "draw_seed",
    "redraw",
    "split_eigenvectors",
]

PIXELS = "pixels_"
NOISE_FAMILIES = ("noise_high", "noise_low", "noise_random", "noise_trailing", "noise_twin")
PIXEL_FAMILIES = tuple(PIXELS + name for name in ATTRIBUTIONS)
RANDOM_FAMILIES = (*NOISE_FAMILIES, *PIXEL_FAMILIES)
REMOVAL_FAMILIES = ("attenuate_high", "attenuate_low", "remove_high", "remove_low")
STEP_FAMILIES = ("step_plus", "step_minus")
FAMILIES = (*RANDOM_FAMILIES, *REMOVAL_FAMILIES, *STEP_FAMILIES)

NEARLY_ORTHONORMAL = 1e-2  # how far a Gram matrix may be from the identity: half precision, never a mistake
SAME_PART = 1e-3  # of |high|: what rows that are orthonormal to their dtype's rounding alone may stray, never another cut
ROUNDING = 64.0  # in units of the image's eps


@dataclass(frozen=True)
class PerturbationSettings:
    """What every image is perturbed by.

    relative_norms: grid of |d| / |x|, from 0 upwards. draws: of every random family. pixel_share: of the pixels that an
    attribution ranks highest. families: names out of FAMILIES. Raises IFIMError where one of them makes no experiment.
    """

    relative_norms: tuple[float, ...] = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    draws: int = 4
    pixel_share: float = 0.05
    families: tuple[str, ...] = FAMILIES

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
        if not {"noise_high", "noise_low"} <= set(self.families):
            raise IFIMError("families lack noise_high or noise_low, which all comparisons are about: add both.")


@dataclass(frozen=True, eq=False)
class Subspaces:
    """Orthonormal rows, made orthonormal to float64 rounding here: spans and their nesting stay as given.

    leading: [k, channel, *spatial], u_1..u_k. trailing: [m, channel, *spatial], u_{k+1}..u_r. twin: [k2, channel, *spatial],
    the leading eigenspace of another network at the same image, or None. Raises IFIMError for rows that are not
    orthonormal or do not belong together.
    """

    leading: Tensor
    trailing: Tensor
    twin: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the shapes and orthonormalise in float64 on the CPU."""
        shapes = {tuple(rows.shape[1:]) for rows in (self.leading, self.trailing, self.twin) if rows is not None}
        if len(shapes) != 1 or self.leading.ndim < 3:
            raise IFIMError(
                f"subspaces have rows of shapes {sorted(shapes)}: all must be [rows, channel, *spatial] of one image."
            )
        kept = self.leading.shape[0]
        own = _orthonormal(torch.cat([self.leading.detach(), self.trailing.detach()]))
        object.__setattr__(self, "leading", own[:kept])
        object.__setattr__(self, "trailing", own[kept:])
        if self.twin is not None:
            object.__setattr__(self, "twin", _orthonormal(self.twin.detach()))

    @property
    def shape(self) -> torch.Size:
        """[channel, *spatial]."""
        return self.leading.shape[1:]


@dataclass(frozen=True, eq=False)
class Perturbation:
    """One way to leave an image.

    draw, seed: of a random family; 0 and None for the others. direction: [channel, *spatial], float64 of unit L2 norm.
    largest: L2 norm up to which the perturbation is defined, in the image's unit; infinite where there is no end.
    """

    family: str
    draw: int
    seed: int | None
    direction: Tensor
    largest: float = math.inf


def split_eigenvectors(
    decomposition: Decomposition, item: int, energy: float = 0.99, rank: int | None = None
) -> tuple[Tensor, Tensor]:
    """(leading [k, channel, *spatial], trailing [m, channel, *spatial]) of one image of a decomposition of energy 1.

    k is the fewest components that hold the share `energy` of the trace, or `rank` where that is given, as in `decompose`.
    Raises IFIMError for settings out of range, and where eigenvectors were left out.
    """
    energy, rank = check_selection(energy, rank)
    available = int(decomposition.rank[item])
    if available < int((decomposition.spectrum[item] > 0).sum()):
        raise IFIMError(f"image {item} has eigenvectors that were not kept: call decompose with energy=1.0.")
    vectors = decomposition.eigenvectors[item, :available]
    held = decomposition.eigenvalues[item, :available].cumsum(0) / decomposition.trace[item]
    fewest = available if energy >= 1.0 else int((held < energy).sum()) + 1
    kept = min(available, fewest if rank is None else rank)
    return vectors[:kept], vectors[kept:]


def draw_seed(seed: int, family: str, draw: int) -> int:
    """Seed of one draw, 0 to 2^63 - 1: it depends on these three alone, not on which others are drawn.

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
    """All perturbations of one image, in the order of `settings.families`; a family that is not defined here is left out.

    Left out are: noise in an empty subspace, pixels of an attribution that is missing or zero everywhere, and
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
    found: list[Perturbation] = []
    for family in settings.families:
        if family in RANDOM_FAMILIES:
            seeds = [draw_seed(seed, family, draw) for draw in range(settings.draws)]
            directions = [_draw(family, own, subspaces, attributions, settings.pixel_share) for own in seeds]
            found += [
                Perturbation(family, draw, own, direction)
                for draw, (own, direction) in enumerate(zip(seeds, directions, strict=True))
                if direction is not None
            ]
        elif family in REMOVAL_FAMILIES:
            found += _removal(family, high, low)
        elif subspaces.leading.shape[0] > 0:
            sign = 1.0 if family == "step_plus" else -1.0
            found.append(Perturbation(family, 0, None, sign * subspaces.leading[0]))
    return found


def redraw(family: str, seed: int, subspaces: Subspaces, attributions: Mapping[str, Tensor], pixel_share: float = 0.05) -> Tensor:
    """The direction [channel, *spatial] of a random family from its recorded seed, unit L2 norm, float64.

    subspaces, attributions, pixel_share: those of `build_perturbations`; a family looks only at its own. Raises IFIMError for
    a family that is not random, or not defined with these.
    """
    if family not in RANDOM_FAMILIES:
        raise IFIMError(f"{family!r} is drawn from no seed: name one of {', '.join(RANDOM_FAMILIES)}.")
    direction = _draw(family, seed, subspaces, attributions, pixel_share)
    if direction is None:
        raise IFIMError(f"{family!r} is not defined here: its subspace or its attribution is missing or empty.")
    return direction


def _draw(family: str, seed: int, subspaces: Subspaces, attributions: Mapping[str, Tensor], pixel_share: float) -> Tensor | None:
    """A normal image confined to the family's subspace or pixels, of unit norm; None where those are empty.

    The confined image, not coefficients in a basis, is drawn: it does not depend on the eigenvectors' signs.
    """
    size = subspaces.shape.numel()
    generator = np.random.default_rng(seed)
    noise = torch.from_numpy(generator.standard_normal(size))
    if family.startswith(PIXELS):
        attribution = attributions.get(family.removeprefix(PIXELS))
        confined = None if attribution is None else noise * _highest_pixels(attribution, subspaces.shape, pixel_share)
    elif family == "noise_low":
        leading = subspaces.leading.flatten(1)
        once = noise - _project(leading, noise)
        confined = once - _project(leading, once) if leading.shape[0] < size else None
    else:
        rows = _random_rows(generator, subspaces) if family == "noise_random" else _rows(family, subspaces)
        confined = None if rows is None else _project(rows.flatten(1), noise)
    if confined is None or not bool(confined.any()):
        return None
    return (confined / torch.linalg.vector_norm(confined)).reshape(subspaces.shape)


def _rows(family: str, subspaces: Subspaces) -> Tensor | None:
    named = {"noise_high": subspaces.leading, "noise_trailing": subspaces.trailing, "noise_twin": subspaces.twin}
    return named[family]


def _random_rows(generator: np.random.Generator, subspaces: Subspaces) -> Tensor:
    """Orthonormal rows [k, D] of a uniformly distributed subspace of the leading one's dimension."""
    kept, size = subspaces.leading.shape[0], subspaces.shape.numel()
    return torch.linalg.qr(torch.from_numpy(generator.standard_normal((size, kept)))).Q.T


def _project(rows: Tensor, flat: Tensor) -> Tensor:
    """Orthogonal projection of [D] onto the span of orthonormal rows [k, D]."""
    return rows.T @ (rows @ flat)


def _highest_pixels(attribution: Tensor, shape: torch.Size, share: float) -> Tensor:
    """1 in all channels of the pixels of largest absolute attribution (summed over channels), 0 elsewhere: [D] float64.

    Pixels of zero attribution are never among them; of equal ones the earlier come first. Raises IFIMError for another
    shape or values that are not finite.
    """
    if attribution.shape != shape or not bool(torch.isfinite(attribution).all()):
        raise IFIMError(f"an attribution of shape {tuple(attribution.shape)}: finite values of shape {tuple(shape)} are needed.")
    score = attribution.detach().cpu().to(torch.float64).abs().sum(0).flatten()
    count = max(1, round(share * score.numel()))
    highest = score.argsort(descending=True, stable=True)[:count]
    chosen = torch.zeros_like(score)
    chosen[highest] = (score[highest] > 0).to(score.dtype)
    return chosen.repeat(shape[0])


def _removal(family: str, high: Tensor, low: Tensor) -> list[Perturbation]:
    """The direction that takes a part away, up to the norm of the smaller part; empty where one of them is zero."""
    parts = {"high": high.detach().cpu().to(torch.float64), "low": low.detach().cpu().to(torch.float64)}
    norms = {name: float(torch.linalg.vector_norm(part)) for name, part in parts.items()}
    rounding = ROUNDING * torch.finfo(high.dtype).eps * math.hypot(*norms.values())
    if min(norms.values()) <= rounding:
        return []
    name = family.partition("_")[2]
    return [Perturbation(family, 0, None, -parts[name] / norms[name], min(norms.values()))]


def _check_parts(image: Tensor, high: Tensor, low: Tensor, subspaces: Subspaces) -> None:
    if not image.shape == high.shape == low.shape == subspaces.shape:
        raise IFIMError(
            f"image {tuple(image.shape)}, high {tuple(high.shape)}, low {tuple(low.shape)} and subspaces of "
            f"{tuple(subspaces.shape)}: all must be [channel, *spatial] of one image, without the batch axis."
        )
    flat, inside, outside = (part.detach().cpu().to(torch.float64).flatten() for part in (image, high, low))
    projected = _project(subspaces.leading.flatten(1), flat)
    rounding = ROUNDING * torch.finfo(image.dtype).eps * torch.linalg.vector_norm(flat)
    leftover = torch.linalg.vector_norm(flat - inside - outside)
    strayed = torch.linalg.vector_norm(inside - projected)
    if not bool(leftover <= rounding) or not bool(strayed <= SAME_PART * torch.linalg.vector_norm(projected) + rounding):
        raise IFIMError(
            "high and low are not the parts of this image inside and outside span(leading): split the image by the leading "
            "eigenvectors that are kept (a decomposition of energy 1 splits it by all of them)."
        )


def _orthonormal(rows: Tensor) -> Tensor:
    """Rows made orthonormal in float64, each span of the first j kept, signs too; IFIMError where they are far from it."""
    flat = rows.cpu().to(torch.float64).flatten(1)
    deviation = flat @ flat.T - torch.eye(flat.shape[0], dtype=torch.float64)
    if flat.shape[0] > 0 and not float(deviation.abs().max()) <= NEARLY_ORTHONORMAL:
        raise IFIMError("the rows of a subspace are not orthonormal: pass eigenvectors of a decomposition, without its padding.")
    q, r = torch.linalg.qr(flat.T)
    return (q * r.diagonal().sign()).T.reshape(rows.shape)
