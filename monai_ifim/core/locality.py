"""Locality radius: how far the quadratic form of the Fisher information describes the network. Forward passes only."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.heads import Head
from monai_ifim.core.predictor import Predictor

DEVIATION = 0.10  # share of e^2 l / 2 by which the divergence may be off inside the radius
FIRST_CHANGE = 0.05  # typical logit change of the first step: far above rounding, below most curvature
GROWTH = 1.5  # largest factor between two steps outwards, so that an early exit is not jumped over
MAXIMUM_STEPS = 48
SMALLEST = 2.0**-10  # of the first step: nothing is looked for below
PRECISION = 0.03  # relative width of the final bracket


def locality_radius(predictor: Predictor, head: Head, image: Tensor, eigenvectors: Tensor, eigenvalues: Tensor) -> Tensor:
    """Largest step e up to which |KL(p(x) || p(x + e u_i)) - e^2 l_i / 2| <= 10 % of e^2 l_i / 2, [B, r] float64.

    image: [B, channel, *spatial]; eigenvectors: [B, r, channel, *spatial]; eigenvalues: [B, r]. In the unit of the image
    (its L2 norm). 0 for padding (eigenvalue 0) and where even the smallest step leaves the bound; infinite where
    no step tried does.
    """
    with torch.no_grad():
        output = predictor(image.clone())
        scale = head.square_root(output).scales.square().sum(1)
        radii = torch.zeros_like(eigenvalues)
        for i in range(eigenvalues.shape[1]):
            search = _Search(predictor, head, image, output, eigenvectors[:, i], eigenvalues[:, i])
            radii[:, i] = search.run(FIRST_CHANGE * (scale.to(eigenvalues) / eigenvalues[:, i]).sqrt())
    return radii


class _Search:
    """Bracket and bisect the radius along one direction; images whose bracket is narrow enough cost no more passes."""

    def __init__(
        self, predictor: Predictor, head: Head, image: Tensor, output: Tensor, direction: Tensor, eigenvalue: Tensor
    ) -> None:
        self.predictor, self.head, self.image, self.output = predictor, head, image, output
        self.direction, self.eigenvalue = direction, eigenvalue

    def run(self, first: Tensor) -> Tensor:
        """Radius [B], the search starting at the steps `first` [B]."""
        first = self._gentle(torch.where(self.eigenvalue > 0, first, 0.0))
        step = first.clone()
        inside, outside = torch.zeros_like(step), torch.full_like(step, torch.inf)
        active = (self.eigenvalue > 0).nonzero()[:, 0]
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
        unbounded = outside.isinf() & (self.eigenvalue > 0)
        return torch.where(unbounded, torch.inf, inside)

    def _gentle(self, step: Tensor) -> Tensor:
        """The steps [B], shortened to where no logit changes by more than FIRST_CHANGE if it changes in proportion.

        Along a direction that moves improbable classes only, a step that costs little changes their logits a lot, and the
        search would start beyond the first exit.
        """
        moved = self.image + step.to(self.image).reshape(-1, *[1] * (self.image.ndim - 1)) * self.direction
        change = self.head.logits(self.predictor(moved)) - self.head.logits(self.output)
        largest = change.abs().amax(1).to(step)
        return torch.where(largest.isfinite(), step * (FIRST_CHANGE / largest).clamp(max=1.0), step)

    def _deviation(self, step: Tensor, items: Tensor) -> Tensor:
        """|KL / (e^2 l / 2) - 1| at the steps [n] of the images `items` [n]; an output that is not finite is outside."""
        shape = (-1,) + (1,) * (self.image.ndim - 1)
        image = self.image[items]
        moved = image + step.to(image).reshape(shape) * self.direction[items]
        finite = torch.isfinite(moved).flatten(1).all(1)
        moved = torch.where(finite.reshape(shape), moved, image)
        divergence = self.head.divergence(self.output[items], self.predictor(moved, items)).to(step)
        deviation = (divergence / (0.5 * step.square() * self.eigenvalue[items]) - 1).abs()
        return torch.where(finite & deviation.isfinite(), deviation, torch.inf)


def _next_step(step: Tensor, deviation: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """The deviation grows in proportion to the step at first: aim there, held inside the bracket."""
    aimed = step * DEVIATION / deviation.clamp_min(1e-12)
    outward = torch.minimum(torch.maximum(aimed, 1.1 * inside), GROWTH * inside)
    middle = torch.where(inside > 0, (inside * outside).sqrt(), outside / 2)
    low, high = inside + 0.1 * (outside - inside), outside - 0.1 * (outside - inside)
    inward = torch.where((aimed > low) & (aimed < high), aimed, middle)
    return torch.where(outside.isinf(), outward, inward)
