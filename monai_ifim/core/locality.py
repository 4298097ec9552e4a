"""Locality radius: how far the quadratic approximation of the divergence holds. Forward passes only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.answer import recorded_head
from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import HeadError, NetworkError
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.registry import head_class
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.precision import autocast, coarsest_eps, weight_dtype
from monai_ifim.core.operator.predictor import Predictor, owner_of
from monai_ifim.core.operator.requirements import check_image

DEVIATION = 0.10  # share of e^2 l / 2 by which the divergence may be off inside the radius
FIRST_CHANGE = 0.05  # typical logit change of the first step: far above rounding, small against the curvature
PASS_ELEMENTS = 2**20  # values of all images in one forward pass
LARGEST_PASS = 32  # images in one forward pass
SMALLEST = 2.0**-10  # share of the first step below which the search ends
LARGE_MAP = 2**18  # values of an image whose answer is a map from which on the search is a coarse one
NEARER = 1 / 8  # share of the radius at which the bound must hold too
SAME_OUTPUT = 10.0  # tolerance of outputs that should be equal, in units of the square root of eps


@dataclass(frozen=True)
class Search:
    """How thoroughly a radius is searched.

    precision: relative width of the final bracket. growth: largest factor between two steps outwards, so that an early exit is
    not missed. aim: share of the expected radius that is tried. steps: most steps of a direction. first_cost: expected
    divergence, in nats, of the first step where the answer is a map. coarse: the radius is the largest step tried inside the
    bound, and the true one may be a few times as large; a further step is made only where it is expected to be longer by
    `precision` for each step before.
    """

    precision: float
    growth: float
    aim: float
    steps: int
    first_cost: float
    coarse: bool = True


FINE = Search(precision=0.03, growth=1.5, aim=1.0, steps=48, first_cost=0.005, coarse=False)
# Each step is a forward pass of many seconds. The first is short enough to lie inside the bound mostly, where it tells how far
# that reaches; divergences of rounded outputs are told apart from there on, those of sums over all voxels earlier.
COARSE = Search(precision=0.5, growth=32.0, aim=0.85, steps=4, first_cost=5e-4)
COARSE_OF_SUMS = replace(COARSE, first_cost=3e-5)


def search_for(head: Head, image: Tensor) -> Search:
    """A coarse search for large images [B, channel, *spatial] whose answer is a map, or sums over one; else FINE."""
    if not head.spatial or image[0].numel() < LARGE_MAP:
        return FINE
    return COARSE if head.columns_at_every_voxel else COARSE_OF_SUMS


def locality_radius(
    network: Callable[..., Any],
    d: Decomposition,
    *,
    head: Head | None = None,
    network_args: Sequence[Any] = (),
    network_kwargs: Mapping[str, Any] | None = None,
) -> Tensor:
    """Largest step e along each eigenimage up to which the divergence stays within 10 % of e^2 l / 2, [B, r] float64.

    In the unit of the image, or of the metric; see `radii`. Forward passes only.
    network, network_args, network_kwargs: those that `d` was made with, on the device of `d`. head, output_key and precision
    are those of `d.record`; head: needed where it was a Head of your own, whose description does not hold its code.
    Raises HeadError for another head than that of `d`, NetworkError where the network's output at `d.image` is not that of
    `d`, and IFIMError as `decompose` does.
    """
    settings = d.record["settings"]
    head = recorded_head(d.record) if head is None else _checked_head(head, d)
    network, dtype = owner_of(network), weight_dtype(settings["precision"])
    image = check_image(network, d.image, dtype)
    further = (tuple(network_args), dict(network_kwargs or {}))
    predictor = Predictor(network, image.shape[0], settings["output_key"], *further, spatial=head.whole.spatial, dtype=dtype)
    with evaluation_mode(network):
        _check_output(predictor, head, d, settings["precision"])
        return radii(predictor, head, image, d.eigenimages, d.eigenvalues)


def radii(
    predictor: Predictor,
    head: Head,
    image: Tensor,
    eigenimages: Tensor,
    eigenvalues: Tensor,
    largest_pass: int = LARGEST_PASS,
    output: Tensor | None = None,
) -> Tensor:
    """Largest step e up to which |KL(p(x) || p(x + e u_i)) - e^2 l_i / 2| <= 10 % of e^2 l_i / 2, [B, r] float64.

    image: [B, channel, *spatial]; eigenimages: [B, r, channel, *spatial]; eigenvalues: [B, r]. largest_pass: images that may
    share a forward pass where they are small; never fewer than the batch. output: of the network at the image, if known.
    0 for padding (eigenvalue 0) and where the smallest step, or an eighth of the largest, leaves the bound; infinite where
    no step tried does. Of large images with maps as answers a lower bound of it (`search_for`).
    """
    if eigenvalues.numel() == 0:
        return torch.zeros_like(eigenvalues)
    with torch.no_grad():
        output = predictor(image.clone()) if output is None else output
        search = _Search(predictor, head, image, output, eigenimages.flatten(0, 1), eigenvalues.flatten(), largest_pass)
        return search.run().reshape(eigenvalues.shape)


def _checked_head(head: Head, d: Decomposition) -> Head:
    """The head given; raises HeadError if the record of `d` describes another, whose divergence would be a different one."""
    asked = d.record["settings"]["head"]
    expected = head_class(d.record["head"])().describe() if isinstance(asked, str) else asked
    if not isinstance(head, Head) or head.describe() != expected:
        raise HeadError(f"head={head!r} is not the head of this decomposition, {expected}: leave head= out, or pass that Head.")
    return recorded_head(d.record, head)


def _check_output(predictor: Predictor, head: Head, d: Decomposition, precision: str | None) -> None:
    """Raise NetworkError if the output at d's image, in the precision of `d`, differs from that of `d`."""
    with torch.no_grad(), autocast(precision, d.image.device):
        found = head.logits(predictor(d.image.to(predictor.dtype or d.image.dtype).clone()))
    tolerance = SAME_OUTPUT * coarsest_eps(precision, d.image.device, d.image.dtype, d.logits.dtype) ** 0.5
    if found.shape == d.logits.shape:
        difference, size = float((found - d.logits).abs().max()), float(d.logits.abs().max())
        if difference <= tolerance * max(1.0, size):
            return
    raise NetworkError(
        "the network's output for this image is not the one in the decomposition: pass the network, network_args, "
        "network_kwargs, head and autocast that made it."
    )


class _Search:
    """Search for the radius along every direction of every image at once by bracketing; finished directions cost no passes.

    directions: [B * r, channel, *spatial]; eigenvalues: [B * r]. Direction n belongs to image n // r.
    """

    def __init__(
        self,
        predictor: Predictor,
        head: Head,
        image: Tensor,
        output: Tensor,
        directions: Tensor,
        eigenvalues: Tensor,
        largest_pass: int,
    ) -> None:
        self.predictor, self.head, self.image, self.output = predictor, head, image, output
        self.directions, self.eigenvalues = directions, eigenvalues
        self.rank = directions.shape[0] // image.shape[0]
        self.chunk = max(image.shape[0], min(largest_pass, PASS_ELEMENTS // image[0].numel()))  # images of one pass
        self.how = search_for(head, image)

    def run(self) -> Tensor:
        """Radii [B * r]."""
        active = (self.eigenvalues > 0).nonzero()[:, 0]
        first = self._first(active)
        step = first.clone()
        inside, outside = torch.zeros_like(step), torch.full_like(step, torch.inf)
        nearest, made = torch.full_like(step, torch.inf), 0  # smallest step inside; steps made
        while active.numel() and made < self.how.steps:
            now = step[active]
            deviation = self._deviation(now, active)
            made += 1
            within = deviation <= DEVIATION
            nearest[active] = torch.where(within, torch.minimum(now, nearest[active]), nearest[active])
            inside[active] = torch.where(within, now, inside[active])
            outside[active] = torch.where(within, outside[active], now)
            step[active] = _next_step(self.how, now, deviation, inside[active], outside[active])
            active = active[self._open(made, step, first, inside, outside)[active]]
        inside = self._without_kinks(inside, nearest)
        return inside if self.how.coarse else torch.where(outside.isinf() & (inside > 0), torch.inf, inside)

    def _open(self, made: int, step: Tensor, first: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
        """True for directions whose radius is not known well enough; step: the next one."""
        wide, large = outside > (1 + self.how.precision) * inside, outside > SMALLEST * first
        if not self.how.coarse:
            return wide & large
        return (inside == 0) | (wide & (step > (1 + made * self.how.precision) * inside))

    def _without_kinks(self, inside: Tensor, nearest: Tensor) -> Tensor:
        """The radii, 0 where shorter steps violate the bound. A divergence with a kink at 0, as where several voxels attain a
        statistic of the image, may satisfy the bound again at longer steps. nearest: shortest step that was inside."""
        found = ((inside > 0) & (nearest > NEARER * inside)).nonzero()[:, 0]
        if found.numel() == 0 or self.how.coarse:
            return inside
        left = found[self._deviation(NEARER * inside[found], found) > DEVIATION]
        return inside.index_fill(0, left, 0.0)

    def _first(self, active: Tensor) -> Tensor:
        """The first step of each direction: of a map, where the divergence `first_cost` is expected; else where by linear
        extrapolation no logit changes by more than FIRST_CHANGE.

        Along a direction that changes improbable classes only, a step of small divergence changes their logits much, and the
        search would start beyond the first exit.
        """
        if self.head.spatial:
            rounded = torch.finfo(self.output.dtype).eps > torch.finfo(torch.float32).eps
            cost = FINE.first_cost if rounded else self.how.first_cost
            return torch.where(self.eigenvalues > 0, (2 * cost / self.eigenvalues).sqrt(), 0.0)
        scale = self.head.square_root(self.output).scales.square().sum(1).repeat_interleave(self.rank)
        step = torch.where(self.eigenvalues > 0, FIRST_CHANGE * (scale.to(self.eigenvalues) / self.eigenvalues).sqrt(), 0.0)
        changes = [
            (self.head.logits(moved) - self.head.logits(self.output[items])).abs().flatten(1).amax(1).to(step)
            for moved, items in self._outputs(step[active], active)
        ]
        largest = torch.cat([step[:0], *changes])
        step[active] *= torch.where(largest.isfinite(), (FIRST_CHANGE / largest).clamp(max=1.0), 1.0)
        return step

    def _deviation(self, step: Tensor, active: Tensor) -> Tensor:
        """|KL / (e^2 l / 2) - 1| at the steps [n] of the directions `active` [n]; infinite where that is not finite."""
        found = [
            self.head.part(items).divergence(self.output[items], moved).to(step) for moved, items in self._outputs(step, active)
        ]
        divergence = torch.cat([step[:0], *found])
        deviation = (divergence / (0.5 * step.square() * self.eigenvalues[active]) - 1).abs()
        return torch.where(deviation.isfinite(), deviation, torch.inf)

    def _outputs(self, step: Tensor, active: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Outputs [m, *output] at the ends of the steps, and the numbers of their images [m], a pass at a time."""
        for steps, pairs in zip(torch.split(step, self.chunk), torch.split(active, self.chunk), strict=True):
            items = pairs // self.rank
            distance = steps.to(self.image).reshape(-1, *[1] * (self.image.ndim - 1))
            yield self.predictor(self.image[items] + distance * self.directions[pairs], items), items


def _next_step(how: Search, step: Tensor, deviation: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Next step of the search: where a deviation proportional to the step reaches DEVIATION, kept inside the bracket."""
    aimed = how.aim * step * DEVIATION / deviation.clamp_min(1e-12)
    outward = torch.minimum(torch.maximum(aimed, 1.1 * inside), how.growth * inside)
    middle = torch.where(inside > 0, (inside * outside).sqrt(), outside / 2)
    low, high = inside + 0.1 * (outside - inside), outside - 0.1 * (outside - inside)
    inward = torch.where((aimed > low) & (aimed < high), aimed, middle)
    return torch.where(outside.isinf(), outward, inward)
