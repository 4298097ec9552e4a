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
from monai_ifim.core.heads.base import Head, Values
from monai_ifim.core.heads.outputs import as_float64, sums_to_one
from monai_ifim.core.heads.square_root import COLUMN_CHUNK, SquareRoot
from monai_ifim.core.heads.voxels import map_of, summed, voxel_blocks
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
        return self._voxel * summed(self.shares(block).sum(2) for (block,) in voxel_blocks(output))

    def deviations(self, volumes: Tensor) -> Tensor:
        """Standard deviation sigma of each volume [B, C], in their unit."""
        amount = self._stated.amount
        if self._stated.unit == "%":
            return (amount / 100 * volumes).clamp_min(self._voxel)
        stated = amount * self._voxel if self._stated.unit == "voxels" else amount
        return torch.full_like(volumes, max(stated, self._voxel))

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """1/2 sum over labels of (V' - V)^2 / sigma^2, [B], with the sigma of `output`."""
        pairs = voxel_blocks(output, moved)
        change = self._voxel * summed((self.shares(after) - self.shares(before)).sum(2) for before, after in pairs)
        return 0.5 * (change / self.deviations(self.probabilities(output))).square().sum(1)

    @abstractmethod
    def _mixed(self, logits: Tensor, weights: Tensor) -> Tensor:
        """sum_c weights_c g_c [B, C, n] at some voxels, for weights [B, C]; g_c: grad_z V_c over the volume of a voxel."""

    @abstractmethod
    def _derivatives(self, logits: Tensor, change: Tensor) -> Tensor:
        """<g_c, w> [B, C] over some voxels, for a change w of their logits [B, C, n]."""

    def _root(self, output: Tensor, mixture: Tensor, norm: Tensor) -> SquareRoot:
        """The root whose column j is sum_c mixture_cj grad_z V_c, of length norm_j; mixture [B, C, r], norm [B, r].

        The score is zero: the mean is the mode.
        """
        unit = mixture / torch.where(norm > 0, norm, 1.0)[:, None]

        def gradient(weights: Tensor, dtype: torch.dtype) -> Tensor:
            return map_of(output, lambda logits: self._mixed(logits, self._voxel * weights), dtype)

        def build(start: int, stop: int) -> Tensor:
            dtype = torch.promote_types(output.dtype, torch.float32)  # of entries of unit rows, which do not underflow
            rows = [gradient(unit[:, :, j], dtype) for j in range(start, min(stop, norm.shape[1]))]
            return rows[0][:, None] if len(rows) == 1 else torch.stack(rows, dim=1)

        def adjoint(change: Tensor) -> Tensor:
            pairs = voxel_blocks(output, change)
            derivatives = self._voxel * summed(self._derivatives(logits, moved) for logits, moved in pairs)
            return (derivatives[:, None] @ mixture)[:, 0]

        def multiply(v: Tensor) -> Tensor:
            return gradient((mixture @ v.to(mixture)[..., None])[..., 0], torch.float64)

        return SquareRoot(norm, torch.zeros_like(norm), build, multiply, adjoint, _chunk(output))

    @property
    def _voxel(self) -> float:
        return 1.0 if self.voxel_volume is None else self.voxel_volume


class VolumesHead(_VolumesHead):
    """Volumes of exclusive labels, output = logits [B, C, *spatial], C >= 2.

    These volumes add up to that of the image, so C - 1 columns hold the Fisher information of all C: with the label m of the
    largest volume left out, w = 1 / sigma_m^2 and D = diag(1 / sigma_c^2) of the others, D + w 1 1^T is factored in closed form.
    """

    name: ClassVar[str] = "volumes"

    def shares(self, output: Tensor) -> Tensor:
        """Softmax at every voxel."""
        return torch.softmax(as_float64(output), dim=1)

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C - 1."""
        volumes = self.probabilities(output)
        order = volumes.argsort(dim=1, descending=True, stable=True)
        largest, others = order[:, :1], order[:, 1:]
        sigma = self.deviations(volumes)
        sigma, sigma_m = sigma.gather(1, others), sigma.gather(1, largest)
        # (I + w s s^T)^(1/2) = I + k s s^T with s = sigma
        squared = sigma.square().sum(1, keepdim=True)
        k = ((1 + squared / sigma_m.square()).sqrt() - 1) / squared
        own, shared = 1 / sigma, k * sigma  # column j = own_j g_j - shared_j g_m, with g_c = grad_z V_c
        squares = summed(_squares(self.shares(block), others, largest, own, -shared) for (block,) in voxel_blocks(output))
        norm, heaviest = (self._voxel * squares.sqrt()).sort(dim=1, descending=True, stable=True)
        others, own, shared = (each.gather(1, heaviest) for each in (others, own, shared))
        mixture = own.new_zeros(*volumes.shape, own.shape[1])
        mixture.scatter_(1, others[:, None], own[:, None])
        mixture.scatter_(1, largest[:, None].expand(-1, 1, own.shape[1]), -shared[:, None])
        return self._root(output, mixture, norm)

    def _mixed(self, logits: Tensor, weights: Tensor) -> Tensor:
        """p_k (m_k - sum_c p_c m_c), m the weights less that of a voxel's likeliest label, so that nothing cancels where its
        probability rounds to one."""
        p = self.shares(logits)
        rest = weights[..., None].expand_as(p)
        rest = rest - rest.gather(1, p.argmax(1, keepdim=True))
        return p * (rest - (p * rest).sum(1, keepdim=True))

    def _derivatives(self, logits: Tensor, change: Tensor) -> Tensor:
        p, rest = self.shares(logits), as_float64(change)
        rest = rest - rest.gather(1, p.argmax(1, keepdim=True))
        return (p * (rest - (p * rest).sum(1, keepdim=True))).sum(2)

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

    def shares(self, output: Tensor) -> Tensor:
        """Sigmoid at every voxel."""
        return torch.sigmoid(as_float64(output))

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = C."""
        own = 1 / self.deviations(self.probabilities(output))
        squares = summed(self._slope(block).square().sum(2) for (block,) in voxel_blocks(output))
        norm, order = (self._voxel * squares.sqrt() * own).sort(dim=1, descending=True, stable=True)
        return self._root(output, torch.diag_embed(own).gather(2, order[:, None].expand(-1, own.shape[1], -1)), norm)

    def _mixed(self, logits: Tensor, weights: Tensor) -> Tensor:
        return weights[..., None] * self._slope(logits)

    def _derivatives(self, logits: Tensor, change: Tensor) -> Tensor:
        return (self._slope(logits) * as_float64(change)).sum(2)

    def _slope(self, logits: Tensor) -> Tensor:
        """p (1 - p), also where p rounds to one."""
        return self.shares(logits) * torch.sigmoid(-as_float64(logits))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits."""
        check_map(output)
        if operation == "sigmoid":
            raise HeadError("the network's output is already a sigmoid at every voxel where logits are expected: remove it.")


def _squares(shares: Tensor, firsts: Tensor, second: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Squared lengths [B, r] of a_j g_j + b_j g_m over some voxels, g_c[k] = p_c (delta_ck - p_k).

    shares: p [B, C, n]; firsts: the labels j [B, r]; second: the label m [B, 1]; a, b: [B, r]. The labels besides these two enter
    through their squares alone. 1 - p of the likeliest label of a voxel is the sum of the others, so that nothing is lost where p
    rounds to one.
    """
    largest, top = shares.max(1)
    others = shares.scatter(1, top[:, None], 0.0)
    below, squares_below = others.sum(1), others.square().sum(1)  # of the labels that are not the likeliest

    def of_label(label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        index = label[:, None, None].expand(-1, 1, shares.shape[2])
        likeliest, own = index[:, 0] == top, shares.gather(1, index)[:, 0]
        return likeliest, own, torch.where(likeliest, below, 1 - own)

    second_likeliest, p_two, less_two = of_label(second[:, 0])
    squares = []
    for j in range(firsts.shape[1]):
        likeliest, p_one, less_one = of_label(firsts[:, j])
        one, two = a[:, j, None] * p_one, b[:, j, None] * p_two
        rest = squares_below - torch.where(likeliest, 0.0, p_one.square()) - torch.where(second_likeliest, 0.0, p_two.square())
        rest = (rest + torch.where(likeliest | second_likeliest, 0.0, largest.square())).clamp_min(0.0)
        parts = one * less_one - two * p_one, two * less_two - one * p_two
        squares.append((parts[0].square() + parts[1].square() + (one + two).square() * rest).sum(1))
    return torch.stack(squares, dim=1)


def _chunk(output: Tensor) -> int:
    """How many cotangents of this size to build at a time."""
    return max(1, min(COLUMN_CHUNK, ELEMENTS // max(1, output.numel())))
