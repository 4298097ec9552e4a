"""An eigendistortion of x -> 2 sqrt(softmax f(x)) under Gaussian noise is an eigenvector of the same F, by other hands."""

from __future__ import annotations

from collections.abc import Callable

import plenoptic
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import decompose


class SquareRootOfProbability(nn.Module):
    """2 sqrt(softmax f) of an image whose depth, if any, is folded into the channels: [B, channel * depth, H, W]."""

    def __init__(self, network: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.shape = network, shape

    def fold(self, x: Tensor) -> Tensor:
        return x if x.ndim == 4 else x.movedim(-1, 2).flatten(1, 2)

    def forward(self, folded: Tensor) -> Tensor:
        x = folded
        if len(self.shape) == 4:
            channel, height, width, depth = self.shape
            x = folded.reshape(-1, channel, depth, height, width).movedim(2, -1)
        probabilities: Tensor = self.network(x).softmax(1)
        return 2 * probabilities.sqrt()


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 5, 4), (2, 3, 5, 4)], ids=["2d", "2d-3channels", "3d-2channels"])
def test_plenoptic_finds_the_same_spectrum_and_subspace(cnn: Callable[..., nn.Sequential], shape: tuple[int, ...]) -> None:
    network = cnn(shape, 5, seed=21).double().requires_grad_(False)
    x = torch.rand(1, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = SquareRootOfProbability(network, shape).eval()
    theirs = plenoptic.Eigendistortion(model.fold(x), model)
    theirs.synthesize(method="exact")
    ours = decompose(network, x, energy=1.0)

    torch.testing.assert_close(ours.eigenvalues[0], theirs.eigenvalues[:4], rtol=1e-9, atol=0)
    assert float(theirs.eigenvalues[4:].max()) < 1e-12 * float(theirs.eigenvalues[0])
    for count in range(1, 5):
        mine = model.fold(ours.eigenvectors[0, :count]).flatten(1)
        other = theirs.eigendistortions[:count].flatten(1)
        torch.testing.assert_close(mine.T @ mine, other.T @ other, rtol=0, atol=1e-8)
