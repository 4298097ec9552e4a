"""Heads for segmentation networks: one answer per voxel, independent given the image.

The output [B, C, *spatial] has as many answers as voxels, so that F = sum over voxels of J_v^T M_v J_v has far more columns
than an image has room for; only `method="matrix_free"` computes it.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Answers, Head, LabelRule
from monai_ifim.core.heads.bernoulli import BernoulliHead
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.outputs import as_float64, sums_to_one
from monai_ifim.core.heads.square_root import SquareRoot, exclusive_root


class VoxelwiseHead(Head):
    """Exclusive classes at every voxel, output = logits [B, C, *spatial], C >= 2: `CategoricalHead`'s root voxel by voxel."""

    name: ClassVar[str] = "voxelwise"
    spatial: ClassVar[bool] = True
    answers: ClassVar[Answers] = "class"
    label_rule: ClassVar[LabelRule | None] = "largest"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See `exclusive_root`; r = (C - 1) x voxels."""
        return exclusive_root(functional.log_softmax(as_float64(output), dim=1))

    def probabilities(self, output: Tensor) -> Tensor:
        """Softmax over the classes of every voxel, [B, C, *spatial] float64."""
        return functional.softmax(as_float64(output), dim=1)

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum over the voxels of the KL of their softmaxes, [B]."""
        batch, classes = output.shape[:2]
        before, after = (z.flatten(2).transpose(1, 2).reshape(-1, classes) for z in (output, moved))
        return CategoricalHead().divergence(before, after).reshape(batch, -1).sum(1)

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


class VoxelwiseBernoulliHead(BernoulliHead):
    """Independent labels at every voxel (or one logit a voxel), output = logits [B, C, *spatial]."""

    name: ClassVar[str] = "voxelwise_bernoulli"
    spatial: ClassVar[bool] = True
    label_rule: ClassVar[LabelRule | None] = "above half"

    def square_root(self, output: Tensor) -> SquareRoot:
        """See `BernoulliHead`; r = C x voxels."""
        shape, root = output.shape, super().square_root(output.flatten(1))
        multiply, adjoint = root.product, root.adjoint_product
        return SquareRoot(
            root.scales,
            root.score,
            lambda start, stop: root.build(start, stop).reshape(shape[0], -1, *shape[1:]),
            lambda v: multiply(v).reshape(shape),
            lambda w: adjoint(w.flatten(1)),
        )

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum over voxels and labels of the KL, [B]."""
        return super().divergence(output.flatten(1), moved.flatten(1))

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
