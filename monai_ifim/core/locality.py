"""Locality radius: how far the quadratic approximation of the divergence holds. Forward passes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
GROWTH = 1.5  # largest factor between two steps outwards, so that an early exit is not missed
MAXIMUM_STEPS = 48
PASS_ELEMENTS = 2**20  # values of all images in one forward pass
LARGEST_PASS = 32  # images in one forward pass
SMALLEST = 2.0**-10  # share of the first step below which the search ends
PRECISION = 0.03  # relative width of the final bracket
NEARER = 1 / 8  # share of the radius at which the bound must hold too
SAME_OUTPUT = 10.0  # tolerance of outputs that should be equal, in units of the square root of eps


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
    predictor: Predictor, head: Head, image: Tensor, eigenimages: Tensor, eigenvalues: Tensor, largest_pass: int = LARGEST_PASS
) -> Tensor:
    """Largest step e up to which |KL(p(x) || p(x + e u_i)) - e^2 l_i / 2| <= 10 % of e^2 l_i / 2, [B, r] float64.

    image: [B, channel, *spatial]; eigenimages: [B, r, channel, *spatial]; eigenvalues: [B, r]. largest_pass: images that may
    share a forward pass where they are small; never fewer than the batch.
    0 for padding (eigenvalue 0) and where the smallest step, or an eighth of the largest, leaves the bound; infinite where
    no step tried does.
    """
    if eigenvalues.numel() == 0:
        return torch.zeros_like(eigenvalues)
    with torch.no_grad():
        output = predictor(image.clone())
        scale = head.square_root(output).scales.square().sum(1, keepdim=True)
        first = torch.where(eigenvalues > 0, FIRST_CHANGE * (scale.to(eigenvalues) / eigenvalues).sqrt(), 0.0)
        search = _Search(predictor, head, image, output, eigenimages.flatten(0, 1), eigenvalues.flatten(), largest_pass)
        return search.run(first.flatten()).reshape(eigenvalues.shape)


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

    def run(self, first: Tensor) -> Tensor:
        """Radii [B * r]; the search starts at the steps `first` [B * r], 0 where there is no direction."""
        active = (self.eigenvalues > 0).nonzero()[:, 0]
        first = self._gentle(first, active)
        step = first.clone()
        inside, outside = torch.zeros_like(step), torch.full_like(step, torch.inf)
        for _ in range(MAXIMUM_STEPS):
            if active.numel() == 0:
                break
            now = step[active]
            deviation = self._deviation(now, active)
            within = deviation <= DEVIATION
            inside[active] = torch.where(within, now, inside[active])
            outside[active] = torch.where(within, outside[active], now)
            step[active] = _next_step(now, deviation, inside[active], outside[active])
            open_bracket = (outside > (1 + PRECISION) * inside) & (outside > SMALLEST * first)
            active = active[open_bracket[active]]
        inside = self._without_kinks(inside)
        unbounded = outside.isinf() & (inside > 0)
        return torch.where(unbounded, torch.inf, inside)

    def _without_kinks(self, inside: Tensor) -> Tensor:
        """The radii, 0 where shorter steps violate the bound. A divergence with a kink at 0, as where several voxels attain a
        statistic of the image, may satisfy the bound again at longer steps."""
        found = (inside > 0).nonzero()[:, 0]
        if found.numel() == 0:
            return inside
        left = found[self._deviation(NEARER * inside[found], found) > DEVIATION]
        return inside.index_fill(0, left, 0.0)

    def _gentle(self, step: Tensor, active: Tensor) -> Tensor:
        """The steps, shortened so that by linear extrapolation no logit changes by more than FIRST_CHANGE.

        Along a direction that changes improbable classes only, a step of small divergence changes their logits much, and the
        search would start beyond the first exit.
        """
        moved = self.head.logits(self._outputs(step[active], active))
        largest = (moved - self.head.logits(self.output)[active // self.rank]).abs().flatten(1).amax(1).to(step)
        shortened = step.clone()
        shortened[active] *= torch.where(largest.isfinite(), (FIRST_CHANGE / largest).clamp(max=1.0), 1.0)
        return shortened

    def _deviation(self, step: Tensor, active: Tensor) -> Tensor:
        """|KL / (e^2 l / 2) - 1| at the steps [n] of the directions `active` [n]; infinite where that is not finite."""
        items = active // self.rank
        divergence = self.head.part(items).divergence(self.output[items], self._outputs(step, active)).to(step)
        deviation = (divergence / (0.5 * step.square() * self.eigenvalues[active]) - 1).abs()
        return torch.where(deviation.isfinite(), deviation, torch.inf)

    def _outputs(self, step: Tensor, active: Tensor) -> Tensor:
        """Outputs [n, C] at the ends of the steps, a chunk of images a pass."""
        outputs = [self.output[:0]]
        for steps, pairs in zip(torch.split(step, self.chunk), torch.split(active, self.chunk), strict=True):
            items = pairs // self.rank
            distance = steps.to(self.image).reshape(-1, *[1] * (self.image.ndim - 1))
            outputs.append(self.predictor(self.image[items] + distance * self.directions[pairs], items))
        return torch.cat(outputs)


def _next_step(step: Tensor, deviation: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Next step of the search: where a deviation proportional to the step reaches DEVIATION, kept inside the bracket."""
    aimed = step * DEVIATION / deviation.clamp_min(1e-12)
    outward = torch.minimum(torch.maximum(aimed, 1.1 * inside), GROWTH * inside)
    middle = torch.where(inside > 0, (inside * outside).sqrt(), outside / 2)
    low, high = inside + 0.1 * (outside - inside), outside - 0.1 * (outside - inside)
    inward = torch.where((aimed > low) & (aimed < high), aimed, middle)
    return torch.where(outside.isinf(), outward, inward)
