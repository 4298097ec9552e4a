"""Wrappers that make a classifier of networks which are none by themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Pooled(nn.Module):
    """Features, their means over space, and a linear layer; an encoder's list of features counts whole."""

    def __init__(self, features: nn.Module, channels: int, classes: int = 3) -> None:
        super().__init__()
        self.features, self.classify = features, nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        found = self.features(x)
        means = [one.flatten(2).mean(2) for one in (found if isinstance(found, (list, tuple)) else [found])]
        answer: Tensor = self.classify(torch.cat(means, dim=1))
        return answer


class Chosen(nn.Module):
    """A network whose output is chosen by a function: `choose(network, x)`."""

    def __init__(self, network: nn.Module, choose: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.choose = network, choose

    def forward(self, x: Tensor) -> Tensor:
        return self.choose(self.network, x)
