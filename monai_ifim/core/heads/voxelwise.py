"""Heads for segmentation networks: one answer per voxel, independent given the image.

The output [B, C, *spatial] has as many answers as voxels, so that F = sum over voxels of J_v^T M_v J_v has far more columns
than an image has room for; only `method="matrix_free"` computes it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Answers, Head, LabelRule
from monai_ifim.core.heads.bernoulli import BernoulliHead, independent_root, label_divergences
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.outputs import as_float64, sums_to_one
from monai_ifim.core.heads.square_root import SquareRoot, exclusive_root
from monai_ifim.core.heads.voxels import blocks_within, inside, root_by_blocks, summed


class VoxelAnswers(Head):
    """An answer at every voxel of a map [B, C, *spatial], which can be restricted to some voxels."""

    spatial: ClassVar[bool] = True

    @abstractmethod
    def root_within(self, output: Tensor, where: Tensor | None) -> SquareRoot:
        """The square root, with zero columns for answers outside of `where` (bool [B, C or 1, *spatial], None for all)."""

    @abstractmethod
    def divergence_within(self, output: Tensor, moved: Tensor, where: Tensor | None) -> Tensor:
        """Sum of the KL over the answers inside of `where`, [B]."""

    @abstractmethod
    def predicted(self, output: Tensor, label: int) -> Tensor:
        """Where a label is predicted, bool [B, C or 1, *spatial]; of independent labels in the label's own channel."""

    def square_root(self, output: Tensor) -> SquareRoot:
        """See `root_within`; of all voxels."""
        return self.root_within(output, None)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """See `divergence_within`; of all voxels."""
        return self.divergence_within(output, moved, None)


class VoxelwiseHead(VoxelAnswers):
    """Exclusive classes at every voxel, output = logits [B, C, *spatial], C >= 2: `CategoricalHead`'s root voxel by voxel."""

    name: ClassVar[str] = "voxelwise"
    spatial: ClassVar[bool] = True
    answers: ClassVar[Answers] = "class"
    label_rule: ClassVar[LabelRule | None] = "largest"

    def root_within(self, output: Tensor, where: Tensor | None) -> SquareRoot:
        """See `exclusive_root`, voxel by voxel; r = (C - 1) x voxels, class by class."""

        def root_of(block: Tensor, counted: Tensor | None) -> SquareRoot:
            return exclusive_root(functional.log_softmax(as_float64(block), dim=1), counted)

        return root_by_blocks(output, root_of, where)

    def predicted(self, output: Tensor, label: int) -> Tensor:
        """The voxels whose likeliest class it is, the first of equal ones, [B, 1, *spatial]."""
        return output.argmax(1, keepdim=True) == label

    def probabilities(self, output: Tensor) -> Tensor:
        """Softmax over the classes of every voxel, [B, C, *spatial] float64."""
        return functional.softmax(as_float64(output), dim=1)

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """Of the mean probability: the mean of p_c (dz_c - sum_k p_k dz_k)."""
        p = self.probabilities(output)
        moved = (as_float64(change) for change in changes.unbind(1))
        return torch.stack([(p * (w - (p * w).sum(1, keepdim=True))).flatten(2).mean(2) for w in moved], dim=1)

    def divergence_within(self, output: Tensor, moved: Tensor, where: Tensor | None) -> Tensor:
        """Sum over the voxels of the KL of their softmaxes, [B]."""
        blocks = blocks_within(output, moved, where=where)
        return summed(inside(self._divergences(before, after), counted).flatten(1).sum(1) for before, after, counted in blocks)

    def _divergences(self, before: Tensor, after: Tensor) -> Tensor:
        """KL at each of some voxels [B, 1, n] of their logits [B, C, n]."""
        batch, classes = before.shape[:2]
        rows = (z.transpose(1, 2).reshape(-1, classes) for z in (before, after))
        return CategoricalHead().divergence(*rows).reshape(batch, 1, -1)

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits of two classes or more."""
        check_map(output)
        if output.shape[1] < 2:
            raise HeadError(
                "head 'voxelwise' needs two classes or more and the network gives one channel: pass "
                "head='voxelwise_bernoulli' for one logit a voxel."
            )
        if operation == "softmax" or sums_to_one(output):
            raise HeadError("the network's output is already a softmax at every voxel where logits are expected: remove it.")


class VoxelwiseBernoulliHead(VoxelAnswers, BernoulliHead):
    """Independent labels at every voxel (or one logit a voxel), output = logits [B, C, *spatial]."""

    name: ClassVar[str] = "voxelwise_bernoulli"
    spatial: ClassVar[bool] = True
    label_rule: ClassVar[LabelRule | None] = "above half"

    def root_within(self, output: Tensor, where: Tensor | None) -> SquareRoot:
        """See `BernoulliHead`; r = C x voxels."""
        shape = output.shape
        root = independent_root(output.flatten(1), None if where is None else where.expand(shape).flatten(1))
        multiply, adjoint = root.product, root.adjoint_product
        return SquareRoot(
            root.scales,
            root.score,
            lambda start, stop: root.build(start, stop).reshape(shape[0], -1, *shape[1:]),
            lambda v: multiply(v).reshape(shape),
            lambda w: adjoint(w.flatten(1)),
        )

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """Of the mean probability: the mean of p_c (1 - p_c) dz_c."""
        slope = torch.sigmoid(as_float64(output)) * torch.sigmoid(-as_float64(output))
        return torch.stack([(slope * as_float64(w)).flatten(2).mean(2) for w in changes.unbind(1)], dim=1)

    def divergence_within(self, output: Tensor, moved: Tensor, where: Tensor | None) -> Tensor:
        """Sum over voxels and labels of the KL, [B]."""
        blocks = blocks_within(output, moved, where=where)
        return summed(inside(label_divergences(before, after), counted).flatten(1).sum(1) for before, after, counted in blocks)

    def predicted(self, output: Tensor, label: int) -> Tensor:
        """The voxels of its own channel where its probability is above one half, [B, C, *spatial]."""
        found = torch.zeros_like(output, dtype=torch.bool)
        found[:, label] = output[:, label] > 0
        return found

    def validate(self, output: Tensor, operation: str | None) -> None:
        """Raise HeadError unless the output is a map of logits."""
        check_map(output)
        super().validate(output, operation)


def mean_probability(probabilities: Tensor) -> Tensor:
    """[B, C] of probabilities [B, C, *spatial]: the mean over voxels; without voxels unchanged."""
    return probabilities.flatten(2).mean(2) if probabilities.ndim > 2 else probabilities


def check_map(output: Tensor) -> None:
    """Raise HeadError unless the output is a map [B, C, *spatial]."""
    if output.ndim < 4:
        raise HeadError(
            f"a voxelwise head needs an answer at every voxel, [B, C, *spatial], and the network gives {tuple(output.shape)}: "
            "pass head='categorical' or 'bernoulli' for a classifier."
        )
