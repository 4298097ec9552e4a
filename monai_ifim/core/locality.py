"""Locality radius: how far the quadratic approximation of the divergence holds. Forward passes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.answer import recorded_head
from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import HeadError, NetworkError
from monai_ifim.core.first_exit import FirstExit
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.registry import head_class
from monai_ifim.core.operator.module_state import evaluation_mode
from monai_ifim.core.operator.precision import autocast, coarsest_eps, weight_dtype
from monai_ifim.core.operator.predictor import Predictor, owner_of
from monai_ifim.core.operator.requirements import check_image

DEVIATION = 0.10  # share of e^2 l / 2 by which the divergence may be off inside the radius
PRECISION = 0.03  # relative width of the bracket around a radius
FIRST_CHANGE = 0.025  # typical logit change of the first step: far above rounding, small against the curvature
LARGEST_CHANGE = 2 * FIRST_CHANGE  # of any logit at the first step
FIRST_COST = 0.005  # expected divergence, in nats, of the first step where the answer is a map
PASS_ELEMENTS = 2**20  # values of all images in one forward pass
LARGEST_PASS = 32  # images in one forward pass
LARGE_MAP = 2**18  # values of an image whose answer is a map from which on the search is a coarse one
SAME_OUTPUT = 10.0  # tolerance of outputs that should be equal, in units of the square root of eps

Measure = Callable[[Tensor, Tensor], Tensor]  # a number [m] of each output [m, *output] of the images with these numbers [m]


@dataclass(frozen=True)
class CoarseSearch:
    """Search by few steps, each a forward pass of many seconds: the radius is the largest step tried inside the bound, and the
    true one may be a few times as large.

    first_cost: expected divergence, in nats, of the first step. growth: largest factor between two steps outwards. aim: share
    of the expected radius that is tried. steps: most steps of a direction. gain: a further step is made only where it is
    expected to be longer by this share for each step before.
    """

    first_cost: float
    growth: float = 32.0
    aim: float = 0.85
    steps: int = 4
    gain: float = 0.5


# The first step is short enough to lie inside the bound mostly, where it tells how far that reaches; divergences of rounded
# outputs are told apart from there on, those of sums over all voxels earlier.
COARSE = CoarseSearch(first_cost=5e-4)
COARSE_OF_SUMS = CoarseSearch(first_cost=3e-5)


def coarse_search(head: Head, image: Tensor) -> CoarseSearch | None:
    """The coarse search for large images [B, channel, *spatial] whose answer is a map, or sums over one; None for others."""
    if not head.spatial or image[0].numel() < LARGE_MAP:
        return None
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
    0 for padding (eigenvalue 0) and where the smallest step leaves the bound; infinite where no step tried does. Of large
    images with maps as answers a lower bound of it (`coarse_search`).
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
    """Search for the radius along every direction of every image at once; finished directions cost no passes.

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

    def run(self) -> Tensor:
        """Radii [B * r]."""
        active = (self.eigenvalues > 0).nonzero()[:, 0]
        how, radius = coarse_search(self.head, self.image), torch.zeros_like(self.eigenvalues)
        radius[active] = self._fine(active) if how is None else self._coarse(active, how)
        return radius

    def _fine(self, active: Tensor) -> Tensor:
        """Radii of the directions `active` [n] to PRECISION, by the first exit along each."""
        searches = self._begun(active)
        wanted = dict(enumerate(search.next_step() for search in searches))
        while open_now := {n: step for n, step in wanted.items() if step is not None}:
            numbers = torch.tensor(list(open_now), device=active.device)
            steps = torch.tensor(list(open_now.values()), dtype=self.eigenvalues.dtype, device=active.device)
            deviations = self._deviation(steps, active[numbers])
            for (n, step), deviation in zip(open_now.items(), deviations.tolist(), strict=True):
                searches[n].add(step, deviation)
                wanted[n] = searches[n].next_step()
        return self.eigenvalues.new_tensor([search.radius for search in searches])

    def _begun(self, active: Tensor) -> list[FirstExit]:
        """A search for each direction. Its first step: of a map, where the divergence FIRST_COST is expected; else where by
        linear extrapolation of a step that changes probable classes by FIRST_CHANGE no logit changes by more than LARGEST_CHANGE.

        Along a direction that changes improbable classes only, a step of small divergence changes their logits much, and the
        search would start beyond the first exit.
        """
        if self.head.spatial:
            return [FirstExit(first, DEVIATION, PRECISION) for first in self._of_cost(FIRST_COST, active).tolist()]
        scale = self.head.square_root(self.output).scales.square().sum(1).repeat_interleave(self.rank)[active]
        step = FIRST_CHANGE * (scale.to(self.eigenvalues) / self.eigenvalues[active]).sqrt()
        divergence, change = self._measured(step, active, self._divergence, self._largest_change)
        shorter = torch.where(change.isfinite() & (change > LARGEST_CHANGE), FIRST_CHANGE / change, 1.0)
        searches = [FirstExit(first, DEVIATION, PRECISION) for first in (step * shorter).tolist()]
        values = self._relative(divergence, step, active)
        for search, reached, value in zip(searches, step.tolist(), values.tolist(), strict=True):
            search.add(reached, value)
        return searches

    def _coarse(self, active: Tensor, how: CoarseSearch) -> Tensor:
        """Lower bounds of the radii of the directions `active` [n]."""
        rounded = torch.finfo(self.output.dtype).eps > torch.finfo(torch.float32).eps
        step = self._of_cost(FIRST_COST if rounded else how.first_cost, active)
        inside, outside = torch.zeros_like(step), torch.full_like(step, torch.inf)
        still = torch.arange(len(active), device=active.device)
        for made in range(1, how.steps + 1):
            if still.numel() == 0:
                break
            now = step[still]
            deviation = self._deviation(now, active[still]).abs()
            within = deviation <= DEVIATION
            inside[still] = torch.where(within, now, inside[still])
            outside[still] = torch.where(within, outside[still], now)
            step[still] = _next_step(how, now, deviation, inside[still], outside[still])
            wide = (outside > (1 + how.gain) * inside) & (step > (1 + made * how.gain) * inside)
            still = still[((inside == 0) | wide)[still]]
        return inside

    def _of_cost(self, cost: float, active: Tensor) -> Tensor:
        """Steps with this expected divergence."""
        return (2 * cost / self.eigenvalues[active]).sqrt()

    def _deviation(self, step: Tensor, active: Tensor) -> Tensor:
        """KL / (e^2 l / 2) - 1 at the steps [n] of the directions `active` [n]; infinite where that is not finite."""
        [divergence] = self._measured(step, active, self._divergence)
        return self._relative(divergence, step, active)

    def _relative(self, divergence: Tensor, step: Tensor, active: Tensor) -> Tensor:
        deviation = divergence / (0.5 * step.square() * self.eigenvalues[active]) - 1
        return torch.where(deviation.isfinite(), deviation, torch.inf)

    def _divergence(self, moved: Tensor, items: Tensor) -> Tensor:
        return self.head.part(items).divergence(self.output[items], moved)

    def _largest_change(self, moved: Tensor, items: Tensor) -> Tensor:
        """The largest change of a logit."""
        return (self.head.logits(moved) - self.head.logits(self.output[items])).abs().flatten(1).amax(1)

    def _measured(self, step: Tensor, active: Tensor, *measures: Measure) -> list[Tensor]:
        """Each measure [n] at the ends of the steps [n] of the directions `active` [n], a pass at a time."""
        found = []
        for steps, pairs in zip(torch.split(step, self.chunk), torch.split(active, self.chunk), strict=True):
            items = pairs // self.rank
            distance = steps.to(self.image).reshape(-1, *[1] * (self.image.ndim - 1))
            moved = self.predictor(self.image[items] + distance * self.directions[pairs], items)
            found.append(torch.stack([measure(moved, items).to(step) for measure in measures]))
        return list(torch.cat(found, 1))


def _next_step(how: CoarseSearch, step: Tensor, deviation: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Next step of a coarse search: where a deviation proportional to the step reaches DEVIATION, kept inside the bracket."""
    aimed = how.aim * step * DEVIATION / deviation.clamp_min(1e-12)
    outward = torch.minimum(torch.maximum(aimed, 1.1 * inside), how.growth * inside)
    middle = torch.where(inside > 0, (inside * outside).sqrt(), outside / 2)
    low, high = inside + 0.1 * (outside - inside), outside - 0.1 * (outside - inside)
    inward = torch.where((aimed > low) & (aimed < high), aimed, middle)
    return torch.where(outside.isinf(), outward, inward)
