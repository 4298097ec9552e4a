"""What the zoo knows about a network, and how it is put into a generic position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

SPREAD = (0.5, 2.0)  # standard deviation of the logits of one image: neither flat nor saturated
CALIBRATION = 4  # images from which batch normalisations take their statistics


@dataclass(frozen=True)
class Entry:
    """One network of the zoo.

    name: its title, unique. source: the package that it comes from. build: makes it, with random weights. shape: of an image,
    [channel, *spatial]. head: what its outputs are. covers: the public names of `monai.networks.nets` that it stands for.
    output_key: see `decompose`. slow: it is left out of the gate.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    head: str = "categorical"
    covers: tuple[str, ...] = ()
    output_key: str | int | None = None
    slow: bool = False
    seed: int = 0

    @property
    def voxelwise(self) -> bool:
        """True for a segmentation network."""
        return self.head.startswith("voxelwise")

    @property
    def ways(self) -> tuple[str, ...]:
        """Ways of decomposing it that are compared; "budget" is the exact method within the smallest budget that works."""
        return ("matrix_free",) if self.voxelwise else ("exact", "adaptive", "matrix_free", "budget")

    def options(self) -> dict[str, Any]:
        """Keywords of `decompose` that belong to this network."""
        return {"head": self.head, "output_key": self.output_key}

    def image(self) -> Tensor:
        """One image [1, channel, *spatial], float64."""
        return torch.rand(1, *self.shape, generator=torch.Generator().manual_seed(self.seed + 1), dtype=torch.float64)

    def network(self) -> nn.Module:
        """The network in float64 and eval mode, its weights in a generic position; the global random state stays."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self.build().double().eval().requires_grad_(False)
            _shift_vectors(network)
            _calibrate(network, torch.rand(CALIBRATION, *self.shape, dtype=torch.float64))
            self._scale_answer(network)
        return network

    def answer(self, network: nn.Module, images: Tensor) -> Tensor:
        """Outputs [B, C, *spatial] for images [B, channel, *spatial]."""
        output: Any = network(images)
        if self.output_key is not None:
            output = output[self.output_key]
        elif isinstance(output, (tuple, list)):
            output = output[0]
        elif not isinstance(output, Tensor):
            output = next(iter(output.values()))
        return output[:, None] if output.ndim == 1 else output if self.voxelwise else output.flatten(1)

    @torch.no_grad()
    def _scale_answer(self, network: nn.Module) -> None:
        layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Conv3d))]
        spread = float(self.answer(network, self.image()).std()) if layers else 1.0
        if SPREAD[0] <= spread <= SPREAD[1] or spread == 0 or spread != spread:
            return
        for parameter in layers[-1].parameters():
            parameter.div_(spread)


@torch.no_grad()
def _shift_vectors(network: nn.Module) -> None:
    """Move gains, offsets and layer scales, of which many start at exactly 0 or 1, and weights that start at zero."""
    for parameter in network.parameters():
        if parameter.ndim <= 1 or not parameter.any():
            parameter.add_(0.2 * torch.randn_like(parameter))


@torch.no_grad()
def _calibrate(network: nn.Module, images: Tensor) -> None:
    """Give batch normalisations the statistics of random images, each then a little off, as in a trained network."""
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return
    with _cumulative(layers):
        network(images)
    for layer in layers:
        layer.running_mean.add_(0.1 * layer.running_var.sqrt() * torch.randn_like(layer.running_mean))
        layer.running_var.mul_(0.7 + 0.8 * torch.rand_like(layer.running_var)).add_(1e-3)


@contextmanager
def _cumulative(layers: list[_BatchNorm]) -> Iterator[None]:
    """Context in which batch normalisations take the statistics of what they see."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    yield
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
