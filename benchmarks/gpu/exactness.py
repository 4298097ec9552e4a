"""Eigenvalues and subspaces on the device, float32, against the exact method in float64 on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.accuracy import largest_relative_error, projector_distance
from benchmarks.networks import Subject, densenet121, residual18, small_densenet, subject, vision_transformer
from benchmarks.results import Bar, Row
from benchmarks.timing import Setting
from monai_ifim import Decomposition, decompose

METHODS: dict[str, dict[str, Any]] = {
    "exact": {"method": "exact", "energy": 1.0},
    "adaptive": {"method": "adaptive", "energy": 0.99, "tolerance": 1e-5},
    "matrix_free": {"method": "matrix_free", "rank": 2, "tolerance": 1e-5},
}
ERROR = 1e-4


class Recurrent(nn.Module):
    """A convolution, an LSTM over the rows of the image, and C logits from its last state."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.memory = nn.LSTM(4 * width, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C] of images [B, 1, H, W]."""
        states, _ = self.memory(self.convolution(x).movedim(1, 2).flatten(2))
        answer: Tensor = self.head(states[:, -1])
        return answer


def exactness(setting: Setting) -> list[Row]:
    """Every method on three networks; the exact one also with TensorFloat-32, where the device has it."""
    flat, device = setting.size(128, 32), setting.device
    subjects = [small_densenet(6, 32, device)] if setting.quick else [densenet121(6, flat, device), residual18(3, 3, 48, device)]
    subjects.append(vision_transformer(6, flat, device, hidden=setting.size(384, 64), layers=setting.size(6, 1)))
    rows = []
    for one in subjects:
        rows += _rows(setting, one)
        with _tensor_float():
            rows.append(_row("exact, TensorFloat-32", one, _truth(one), METHODS["exact"], None))
    return rows


def recurrent(setting: Setting) -> list[Row]:
    """The same of a network with an LSTM in eval mode, whose cuDNN kernels have no backward pass."""
    side = setting.size(64, 16)
    return _rows(setting, subject(f"LSTM over rows, 2D {side}^2", lambda: Recurrent(3, side), (side, side), 3, setting.device))


def _rows(setting: Setting, one: Subject) -> list[Row]:
    setting.note(one.title)
    truth = _truth(one)
    return [_row(name, one, truth, options, Bar(ERROR, False)) for name, options in METHODS.items()]


def _truth(one: Subject) -> Decomposition:
    network = copy.deepcopy(one.network).cpu().double()
    return decompose(network, one.image.cpu().double(), head="categorical", energy=1.0, method="exact", verify="never")


def _row(name: str, one: Subject, truth: Decomposition, options: dict[str, Any], bar: Bar | None) -> Row:
    found = decompose(one.network, one.image, head="categorical", verify="never", **options)
    kept = int(found.rank[0])
    error = largest_relative_error(found.eigenvalues[0, :kept], truth.eigenvalues[0, :kept])
    first = [d.eigenvectors[0, :1].cpu() for d in (found, truth)]
    details = f"{kept} components by {found.record['method']}; u_1 turned by {projector_distance(*first):.1e}"
    return Row(f"largest relative error of eigenvalues, {name}", one.title, error, bar, details=details)


@contextmanager
def _tensor_float() -> Iterator[None]:
    """Context in which convolutions and matrix products may round to TensorFloat-32."""
    before = (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])
