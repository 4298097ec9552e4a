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
from monai_ifim.core.heads.outputs import HIDDEN, as_float64, sums_to_one
from monai_ifim.core.heads.square_root import COLUMN_CHUNK, SquareRoot, ValueGradients
from monai_ifim.core.heads.volume_gradients import all_gradients, pair_squares
from monai_ifim.core.heads.voxels import blocks_within, inside, map_of, summed
from monai_ifim.core.heads.voxelwise import check_map
from monai_ifim.options import VOLUME_TOLERANCE

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
        found = TOLERANCE.fullmatch(text) if isinstance(text, str) else None
        if found is None or not 0 < float(found[1]) < float("inf"):
            raise HeadError(f"{text!r} is no tolerance of a volume: give one above zero, such as '5 %', '0.5 ml' or '20 voxels'.")
        return cls(float(found[1]), "voxels" if found[2].startswith("voxel") else found[2])


class VolumesOfLabels(Head):
    """The expected volume of each label of a map of logits [B, C, *spatial]; see the module.

    tolerance: standard deviation of each volume, such as "5 %" of it, "0.5 ml" or "20 voxels"; never less than one voxel's
    volume, so that it is above zero for a label that is absent. voxel_volume: ml that a voxel of the output takes up, one number
    or one for each image [B]; None: that of the image where it is known, else volumes are counted in voxels. A tolerance in ml
    for an image whose voxels have no known volume is refused when it is decomposed. Raises HeadError for invalid values.
    """

    spatial: ClassVar[bool] = True
    columns_at_every_voxel: ClassVar[bool] = False
    values: ClassVar[Values] = "mean"

    def __init__(self, tolerance: str = VOLUME_TOLERANCE, voxel_volume: float | Tensor | None = None) -> None:
        self.tolerance, self.voxel_volume = tolerance, voxel_volume
        self._stated = VolumeTolerance.parsed(tolerance)
        if voxel_volume is not None:
            volumes = torch.as_tensor(voxel_volume, dtype=torch.float64, device="cpu")
            if volumes.ndim > 1 or not bool(((volumes > 0) & volumes.isfinite()).all()):
                raise HeadError(f"voxel_volume={voxel_volume}: a voxel takes up more than zero ml.")

    @property
    def unit(self) -> str:
        """Unit of the volumes."""
        return "voxels" if self.voxel_volume is None else "ml"

    def measured(self, tolerance: str, voxel_volume: Tensor | None) -> VolumesOfLabels:
        """The head with this tolerance for images whose voxels have these volumes in ml [B]; what it states itself counts first.

        Raises HeadError where it states another tolerance.
        """
        if VOLUME_TOLERANCE not in (tolerance, self.tolerance) and tolerance != self.tolerance:
            raise HeadError(
                f"volume_tolerance={tolerance!r} and the head's own tolerance of {self.tolerance!r}: give it in one place."
            )
        own = tolerance if self.tolerance == VOLUME_TOLERANCE else self.tolerance
        volume = voxel_volume if self.voxel_volume is None else self.voxel_volume
        return self if own == self.tolerance and volume is self.voxel_volume else type(self)(own, volume)

    def part(self, items: slice | Tensor) -> VolumesOfLabels:
        """See `Head`."""
        volume = self.voxel_volume
        one_each = isinstance(volume, Tensor) and volume.ndim == 1 and volume.numel() > 1
        return type(self)(self.tolerance, volume[items]) if isinstance(volume, Tensor) and one_each else self

    @abstractmethod
    def shares(self, output: Tensor) -> Tensor:
        """Probability of each label at every voxel, [B, C, *spatial] float64."""

    @abstractmethod
    def root_of(self, output: Tensor, label: int | None, where: Tensor | None) -> SquareRoot:
        """The square root for the volume of one label, None for all, inside of `where`, bool [B, 1, *spatial], None for all."""

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class."""
        return self.root_of(output, None, None)

    def volumes(self, output: Tensor, where: Tensor | None) -> Tensor:
        """Expected volume of each label [B, C] float64, in `unit`; where: as `root_of`."""
        found = summed(inside(self.shares(block), counted).sum(2) for block, counted in blocks_within(output, where=where))
        return self._voxel(found) * found

    def probabilities(self, output: Tensor) -> Tensor:
        """Expected volume of each label, [B, C] float64, in `unit`."""
        return self.volumes(output, None)

    def deviations(self, volumes: Tensor) -> Tensor:
        """Standard deviation sigma of each volume [B, C], in their unit; raises HeadError for one in ml that is not known."""
        self._check_unit()
        amount, voxel = self._stated.amount, self._voxel(volumes)
        if self._stated.unit == "%":
            return torch.maximum(amount / 100 * volumes, voxel)
        stated = amount * voxel if self._stated.unit == "voxels" else torch.full_like(voxel, amount)
        return torch.maximum(stated, voxel).expand_as(volumes)

    def divergence_of(self, output: Tensor, moved: Tensor, label: int | None, where: Tensor | None) -> Tensor:
        """1/2 sum over labels of (V' - V)^2 / sigma^2, [B], with the sigma of `output`; label, where: as `root_of`."""
        blocks = blocks_within(output, moved, where=where)
        change = summed(inside(self.shares(after) - self.shares(before), counted).sum(2) for before, after, counted in blocks)
        shares = self._voxel(change) * change / self.deviations(self.volumes(output, where))
        return 0.5 * (shares if label is None else shares[:, label : label + 1]).square().sum(1)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """See `divergence_of`; of all labels, everywhere."""
        return self.divergence_of(output, moved, None, None)

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits."""
        check_map(output)
        self._check_unit()

    @abstractmethod
    def _mixed(self, logits: Tensor, weights: Tensor) -> Tensor:
        """sum_c weights_c g_c [B, C, n] of the logits of some voxels, with weights [B, C] and g_c = grad_z V_c."""

    @abstractmethod
    def _derivatives(self, logits: Tensor, change: Tensor) -> Tensor:
        """<g_c, w> at each of some voxels, [B, C, n], of their logits and the change w of these."""

    def _root(self, output: Tensor, where: Tensor | None, mixture: Tensor, norm: Tensor, values: ValueGradients) -> SquareRoot:
        """The root whose column j is sum_c mixture_cj grad_z V_c, of length norm_j; mixture [B, C, r], norm [B, r].

        The score is zero: the mean is the mode.
        """
        unit, voxel = mixture / torch.where(norm > 0, norm, 1.0)[:, None], self._voxel(norm)

        def gradient(weights: Tensor, dtype: torch.dtype) -> Tensor:
            return map_of(output, lambda logits: self._mixed(logits, voxel * weights), dtype, where)

        def build(start: int, stop: int) -> Tensor:
            dtype = torch.promote_types(output.dtype, torch.float32)  # of entries of unit rows, which do not underflow
            rows = [gradient(unit[:, :, j], dtype) for j in range(start, min(stop, norm.shape[1]))]
            return torch.stack(rows, dim=1)

        def multiply(v: Tensor) -> Tensor:
            return gradient((mixture @ v.to(mixture)[..., None])[..., 0], torch.float64)

        def adjoint(change: Tensor) -> Tensor:
            blocks = blocks_within(output, change, where=where)
            found = summed(inside(self._derivatives(logits, moved), counted).sum(2) for logits, moved, counted in blocks)
            return ((voxel * found)[:, None] @ mixture)[:, 0]

        return SquareRoot(norm, torch.zeros_like(norm), build, multiply, adjoint, _chunk(output), values)

    def _check_unit(self) -> None:
        """Raise HeadError for a tolerance in ml where the volume of a voxel is not known."""
        if self._stated.unit == "ml" and self.voxel_volume is None:
            raise HeadError(
                f"a tolerance of {self.tolerance} needs the volume of a voxel, which this image does not state: state the "
                "tolerance in '%' or 'voxels'. In Python, voxel_volume= states it in ml."
            )

    def _voxel(self, like: Tensor) -> Tensor:
        """Volume of a voxel, [1, 1] or [B, 1], in `unit`."""
        volume = 1.0 if self.voxel_volume is None else self.voxel_volume
        return torch.as_tensor(volume, dtype=torch.float64).to(like.device).reshape(-1, 1)


class VolumesHead(VolumesOfLabels):
    """Volumes of exclusive labels, output = logits [B, C, *spatial], C >= 2.

    These volumes add up to that of the image, so C - 1 columns hold the Fisher information of all C: with the label m of the
    largest volume left out, w = 1 / sigma_m^2 and D = diag(1 / sigma_c^2) of the others, D + w 1 1^T is factored in closed form.
    """

    name: ClassVar[str] = "volumes"
    label_rule: ClassVar[LabelRule | None] = "largest"

    def shares(self, output: Tensor) -> Tensor:
        """Softmax at every voxel."""
        return torch.softmax(as_float64(output), dim=1)

    def root_of(self, output: Tensor, label: int | None, where: Tensor | None) -> SquareRoot:
        """See `VolumesOfLabels`; r = C - 1, or 1 for a label."""
        volumes = self.volumes(output, where)
        sigma = self.deviations(volumes)
        if label is not None:
            one, own = torch.full_like(volumes[:, :1], label, dtype=torch.int64), sigma[:, label : label + 1]
            beside = (one + 1) % volumes.shape[1]
            norm = self._lengths(output, where, one, beside, 1 / own, torch.zeros_like(own))
            mixture = torch.zeros_like(volumes)[..., None].scatter(1, one[..., None], 1 / own[..., None])
            return self._root(output, where, mixture, norm, ValueGradients(own[..., None], own))
        order = volumes.argsort(dim=1, descending=True, stable=True)
        largest, others = order[:, :1], order[:, 1:]
        s, sigma_m = sigma.gather(1, others), sigma.gather(1, largest)
        # (I + w s s^T)^(1/2) = I + k s s^T with s = sigma
        squared = s.square().sum(1, keepdim=True)
        k = ((1 + squared / sigma_m.square()).sqrt() - 1) / squared
        # column j = g_j / s_j - k s_j g_m, with g_c = grad_z V_c
        norm, heaviest = self._lengths(output, where, others, largest, 1 / s, -k * s).sort(dim=1, descending=True, stable=True)
        others, s = others.gather(1, heaviest), s.gather(1, heaviest)
        mixture = s.new_zeros(*volumes.shape, s.shape[1])
        mixture.scatter_(1, others[:, None], 1 / s[:, None])
        mixture.scatter_(1, largest[:, None].expand(-1, 1, s.shape[1]), -(k * s)[:, None])
        return self._root(output, where, mixture, norm, ValueGradients(all_gradients(others, largest, s, k), sigma))

    def _lengths(self, output: Tensor, where: Tensor | None, firsts: Tensor, second: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """Lengths [B, r] of a_j g_j + b_j g_m; see `pair_squares`."""
        blocks = blocks_within(output, where=where)
        squares = summed(pair_squares(self.shares(block), firsts, second, a, b, counted) for block, counted in blocks)
        return self._voxel(squares) * squares.sqrt()

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
        return p * (rest - (p * rest).sum(1, keepdim=True))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits of two labels or more."""
        super().validate(output, operation)
        if output.shape[1] < 2:
            raise HeadError(
                "head 'volumes' needs two labels or more and the network gives one channel: pass head='volumes_bernoulli' for "
                "one logit a voxel."
            )
        if operation == "softmax" or sums_to_one(output):
            raise HeadError("the network's output is already a softmax at every voxel where logits are expected: remove it.")


class IndependentVolumesHead(VolumesOfLabels):
    """Volumes of independent labels (or of one), output = logits [B, C, *spatial]: column c is grad V_c / sigma_c."""

    name: ClassVar[str] = "volumes_bernoulli"
    label_rule: ClassVar[LabelRule | None] = "above half"

    def shares(self, output: Tensor) -> Tensor:
        """Sigmoid at every voxel."""
        return torch.sigmoid(as_float64(output))

    def root_of(self, output: Tensor, label: int | None, where: Tensor | None) -> SquareRoot:
        """See `VolumesOfLabels`; r = C, or 1 for a label."""
        sigma = self.deviations(self.volumes(output, where))
        blocks = blocks_within(output, where=where)
        squares = summed(inside(self._slope(block).square(), counted).sum(2) for block, counted in blocks)
        norm = self._voxel(squares) * squares.sqrt() / sigma
        columns, unit = torch.diag_embed(1 / sigma), torch.diag_embed(sigma)
        if label is not None:
            one = slice(label, label + 1)
            values = ValueGradients(sigma[:, one, None], sigma[:, one])
            return self._root(output, where, columns[:, :, one], norm[:, one], values)
        norm, order = norm.sort(dim=1, descending=True, stable=True)
        mixture, coefficients = (each.gather(2, order[:, None].expand_as(each)) for each in (columns, unit))
        return self._root(output, where, mixture, norm, ValueGradients(coefficients, sigma))

    def _mixed(self, logits: Tensor, weights: Tensor) -> Tensor:
        return weights[..., None] * self._slope(logits)

    def _derivatives(self, logits: Tensor, change: Tensor) -> Tensor:
        return self._slope(logits) * as_float64(change)

    def _slope(self, logits: Tensor) -> Tensor:
        """p (1 - p), also where p rounds to one."""
        return self.shares(logits) * torch.sigmoid(-as_float64(logits))

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits."""
        super().validate(output, operation)
        if operation in ("sigmoid", HIDDEN) and bool(((output >= 0) & (output <= 1)).all()):
            raise HeadError("the network's output is already a sigmoid at every voxel where logits are expected: remove it.")


def _chunk(output: Tensor) -> int:
    """How many cotangents of this size to build at a time."""
    return max(1, min(COLUMN_CHUNK, ELEMENTS // max(1, output.numel())))
