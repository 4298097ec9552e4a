"""Heads on the volumes of a segmentation: how much of the image each label takes up, with a stated tolerance.

The answer is the expected volume of each label, V_c = sum over voxels of p_c times the volume of a voxel, read as a Gaussian
with standard deviation sigma_c: F = sum over labels of grad V_c grad V_c^T / sigma_c^2. It needs as many products as labels,
however many voxels there are. What moves the answer at each voxel is the question of `heads.voxelwise`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Head, LabelRule, Values
from monai_ifim.core.heads.outputs import as_float64, sums_to_one
from monai_ifim.core.heads.square_root import COLUMN_CHUNK, SquareRoot
from monai_ifim.core.heads.voxelwise import check_map

TOLERANCE = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%|ml|voxels?)\s*")
ELEMENTS = 2**24  # of the cotangents that are built together


@dataclass(frozen=True)
class VolumeTolerance:
    """Standard deviation of a volume: a share of it, or an amount in its own unit. unit: "%", "ml" or "voxels"."""

    amount: float
    unit: str

    @classmethod
    def parsed(cls, text: str) -> VolumeTolerance:
        """Of a text such as "5 %", "0.5 ml" or "20 voxels"; raises HeadError for any other."""
        found = TOLERANCE.fullmatch(text)
        if found is None or not 0 < float(found[1]) < float("inf"):
            raise HeadError(f"{text!r} is no tolerance of a volume: give one above zero, such as '5 %', '0.5 ml' or '20 voxels'.")
        return cls(float(found[1]), "voxels" if found[2].startswith("voxel") else found[2])


class _VolumesHead(Head):
    """The expected volume of each label of a map of logits [B, C, *spatial]; see the module.

    tolerance: standard deviation of each volume, such as "5 %" of it, "0.5 ml" or "20 voxels"; never less than one voxel's
    volume, so that it is above zero for a label that is absent. voxel_volume: ml that a voxel of the output takes up; None: not
    known, and volumes are counted in voxels. Raises HeadError for a tolerance in ml without it.
    """

    spatial: ClassVar[bool] = True
    columns_at_every_voxel: ClassVar[bool] = False
    values: ClassVar[Values] = "mean"

    def __init__(self, tolerance: str = "5 %", voxel_volume: float | None = None) -> None:
        self.tolerance, self.voxel_volume = tolerance, voxel_volume
        self._stated = VolumeTolerance.parsed(tolerance)
        if voxel_volume is not None and not 0 < voxel_volume < float("inf"):
            raise HeadError(f"voxel_volume={voxel_volume}: a voxel takes up more than zero ml.")
        if self._stated.unit == "ml" and voxel_volume is None:
            raise HeadError(
                f"a tolerance of {tolerance} needs the volume of a voxel: pass voxel_volume= in ml, or state the tolerance in "
                "'%' or 'voxels'."
            )

    @property
    def unit(self) -> str:
        """Unit of the volumes."""
        return "voxels" if self.voxel_volume is None else "ml"

    @abstractmethod
    def shares(self, output: Tensor) -> Tensor:
        """Probability of each label at every voxel, [B, C, *spatial] float64."""

    def probabilities(self, output: Tensor) -> Tensor:
        """Expected volume of each label, [B, C] float64, in `unit`."""
        return self._voxel * self.shares(output).flatten(2).sum(2)

    def deviations(self, volumes: Tensor) -> Tensor:
        """Standard deviation sigma of each volume [B, C], in their unit."""
        amount = self._stated.amount
        if self._stated.unit == "%":
            return (amount / 100 * volumes).clamp_min(self._voxel)
        stated = amount * self._voxel if self._stated.unit == "voxels" else amount
        return torch.full_like(volumes, max(stated, self._voxel))

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """1/2 sum over labels of (V' - V)^2 / sigma^2, [B], with the sigma of `output`."""
        volumes = self.probabilities(output)
        change = self._voxel * (self.shares(moved) - self.shares(output)).flatten(2).sum(2)
        return 0.5 * (change / self.deviations(volumes)).square().sum(1)

    @property
    def _voxel(self) -> float:
        return 1.0 if self.voxel_volume is None else self.voxel_volume


class VolumesHead(_VolumesHead):
    """Volumes of exclusive labels, output = logits [B, C, *spatial], C >= 2.

    These volumes add up to that of the image, so C - 1 columns hold the Fisher information of all C: with the label m of the
    largest volume left out, w = 1 / sigma_m^2 and D = diag(1 / sigma_c^2) of the others, D + w 1 1^T is factored in closed form.
    """

    name: ClassVar[str] = "volumes"
    label_rule: ClassVar[LabelRule | None] = "largest"

    def shares(self, output: Tensor) -> Tensor:
        """Softmax at every voxel."""
        return torch.softmax(as_float64(output), dim=1)

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C - 1. The score is zero: the mean is the mode."""
        p = self.shares(output)
        volumes = self._voxel * p.flatten(2).sum(2)
        order = volumes.argsort(dim=1, descending=True, stable=True)
        largest, others = order[:, :1], order[:, 1:]
        sigma = self.deviations(volumes)
        sigma, sigma_m = sigma.gather(1, others), sigma.gather(1, largest)
        # (I + w s s^T)^(1/2) = I + k s s^T with s = sigma
        squared = sigma.square().sum(1, keepdim=True)
        k = ((1 + squared / sigma_m.square()).sqrt() - 1) / squared
        own, shared = 1 / sigma, k * sigma  # column j = own_j g_j - shared_j g_m, with g_c = grad_z V_c

        gradients = _Gradients(p, self._voxel)
        labels = range(others.shape[1])
        norm = torch.stack([gradients.norm(others[:, j], largest[:, 0], own[:, j], -shared[:, j]) for j in labels], dim=1)
        norm, heaviest = norm.sort(dim=1, descending=True, stable=True)
        others, own, shared = (each.gather(1, heaviest) for each in (others, own, shared))

        def build(start: int, stop: int) -> Tensor:
            safe = torch.where(norm > 0, norm, 1.0)[:, start:stop]
            rows = [
                gradients.combined(others[:, j], largest[:, 0], own[:, j], -shared[:, j]) / _beside(safe[:, j - start], p)
                for j in range(start, min(stop, norm.shape[1]))
            ]
            return torch.stack(rows, dim=1)

        return SquareRoot(norm, torch.zeros_like(norm), build, chunk=_chunk(p))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits of two labels or more."""
        check_map(output)
        if output.shape[1] < 2:
            raise HeadError(
                "head 'volumes' needs two labels or more and the network gives one channel: pass head='volumes_bernoulli' for "
                "one logit a voxel."
            )
        if operation == "softmax" or sums_to_one(output):
            raise HeadError("the network's output is already a softmax at every voxel where logits are expected: remove it.")


class IndependentVolumesHead(_VolumesHead):
    """Volumes of independent labels (or of one), output = logits [B, C, *spatial]: column c is grad V_c / sigma_c."""

    name: ClassVar[str] = "volumes_bernoulli"
    label_rule: ClassVar[LabelRule | None] = "above half"

    def shares(self, output: Tensor) -> Tensor:
        """Sigmoid at every voxel."""
        return torch.sigmoid(as_float64(output))

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C. The score is zero: the mean is the mode."""
        p = self.shares(output)
        sigma = self.deviations(self._voxel * p.flatten(2).sum(2))
        slope = self._voxel * p * torch.sigmoid(-as_float64(output))  # p (1 - p), also where p rounds to one
        length = slope.flatten(2).norm(dim=2)
        scales, order = (length / sigma).sort(dim=1, descending=True, stable=True)

        def build(start: int, stop: int) -> Tensor:
            rows = torch.zeros(p.shape[0], stop - start, *p.shape[1:], dtype=p.dtype, device=p.device)
            for b, chosen in enumerate(order[:, start:stop].tolist()):
                for j, c in enumerate(chosen):
                    rows[b, j, c] = slope[b, c] / torch.where(length[b, c] > 0, length[b, c], 1.0)
            return rows

        return SquareRoot(scales, torch.zeros_like(scales), build, chunk=_chunk(p))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits."""
        check_map(output)
        if operation == "sigmoid":
            raise HeadError("the network's output is already a sigmoid at every voxel where logits are expected: remove it.")


class _Gradients:
    """Gradients g_c of the volumes by the logits: at each voxel g_c[k] = voxel p_c (delta_ck - p_k).

    shares: p [B, C, *spatial]; voxel: volume of one. 1 - p of the likeliest label of a voxel is the sum of the others, so that no
    gradient is lost where p rounds to one.
    """

    def __init__(self, shares: Tensor, voxel: float) -> None:
        self.shares, self.voxel = shares, voxel
        self.top = shares.argmax(1, keepdim=True)
        others = shares.scatter(1, self.top, 0.0)
        self.below, self.squares_below = others.sum(1), others.square().sum(1)  # of the labels that are not the likeliest

    def combined(self, first: Tensor, second: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """a g_first + b g_second [B, C, *spatial], for two labels and two numbers of each image [B]."""
        p = self.shares
        rows = torch.zeros_like(p)
        for label, factor in ((first, a), (second, b)):
            index = _beside(label, p).expand(-1, 1, *p.shape[2:])
            rows.scatter_add_(1, index, _beside(factor, p) * p.gather(1, index))
        rows -= rows.sum(1, keepdim=True) * p
        rows.scatter_(1, self.top, 0.0)
        rows.scatter_(1, self.top, -rows.sum(1, keepdim=True))  # the gradient of a softmax adds up to zero
        return self.voxel * rows

    def norm(self, first: Tensor, second: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Length of `combined` [B], without building it: the labels besides these two enter through their squares alone."""
        p, top = self.shares, self.top[:, 0]
        both, rest = [], self.squares_below
        for label, factor in ((first, a), (second, b)):
            index = _beside(label, p).expand(-1, 1, *p.shape[2:])
            likeliest, own = index[:, 0] == top, p.gather(1, index)[:, 0]
            both.append((_beside(factor, own) * own, torch.where(likeliest, self.below, 1 - own), own, likeliest))
            rest = rest - torch.where(likeliest, 0.0, own.square())
        neither = ~(both[0][3] | both[1][3])
        rest = (rest + torch.where(neither, p.amax(1).square(), 0.0)).clamp_min(0.0)
        (one, less_one, p_one, _), (two, less_two, p_two, _) = both
        parts = [one * less_one - two * p_one, two * less_two - one * p_two]
        squares = parts[0].square() + parts[1].square() + (one + two).square() * rest
        return self.voxel * squares.flatten(1).sum(1).sqrt()


def _chunk(shares: Tensor) -> int:
    """How many cotangents of this size to build at a time."""
    return max(1, min(COLUMN_CHUNK, ELEMENTS // max(1, shares.numel())))


def _beside(values: Tensor, like: Tensor) -> Tensor:
    """[B] with as many axes as `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
