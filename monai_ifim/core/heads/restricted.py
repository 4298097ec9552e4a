"""Heads of part of an answer: one class or label against the rest, or some voxels of a segmentation.

What is predicted at the image decides which voxels belong to a label, and stays fixed while the image moves: the heads here
describe how the answer changes at these voxels, not how their number does.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.bernoulli import BernoulliHead
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.heads.volumes import VolumesOfLabels
from monai_ifim.core.heads.voxelwise import VoxelAnswers


class RestrictedHead(Head):
    """A head that asks about part of the answer of another, `whole`.

    label: number of a class or label, None for all. mask: voxels [B, *spatial] of the output's grid, bool, None for all.
    """

    name: ClassVar[str] = "restricted"

    def __init__(self, whole: Head, label: int | None, mask: Tensor | None = None) -> None:
        self._whole, self.label, self.mask = whole, label, mask

    @property
    def whole(self) -> Head:
        """See `Head`."""
        return self._whole

    def part(self, items: slice | Tensor) -> Head:
        """See `Head`."""
        return type(self)(self._whole.part(items), self.label, None if self.mask is None else self.mask[items])

    def probabilities(self, output: Tensor) -> Tensor:
        """Those of the whole answer."""
        return self._whole.probabilities(output)

    def logits(self, output: Tensor) -> Tensor:
        """Those of the whole answer."""
        return self._whole.logits(output)

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """Those of the whole answer."""
        return self._whole.answer_changes(output, changes)

    @abstractmethod
    def voxels(self, output: Tensor) -> Tensor | None:
        """Number of voxels of the output that are asked about, [B] int64; None for an answer without voxels."""


class LabelHead(RestrictedHead):
    """One class or label against the rest, of a classifier: the Bernoulli of its log-odds t, F = p (1 - p) grad t grad t^T.

    One column, whatever the number of classes: `whole.log_odds` gives t and dt/d output without cancellation, also where the
    probability rounds to one.
    """

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; r = 1."""
        t, direction = self._log_odds(output)
        length = direction.norm(dim=1, keepdim=True)
        unit = direction / torch.where(length > 0, length, 1.0)
        root = BernoulliHead().square_root(t[:, None])
        return SquareRoot(root.scales * length, root.score, lambda start, stop: unit[:, None][:, start:stop])

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """KL of the two answers, the label or the rest."""
        before, after = (self._log_odds(each)[0][:, None] for each in (output, moved))
        return BernoulliHead().divergence(before, after)

    def answer_changes(self, output: Tensor, changes: Tensor) -> Tensor:
        """d log p = (1 - p) dt of this label alone, [B, m, 1]."""
        t, direction = self._log_odds(output)
        along = (as_float64(changes) * direction[:, None]).sum(2, keepdim=True)
        return along * torch.sigmoid(-t)[:, None, None]

    def voxels(self, output: Tensor) -> None:
        """See `RestrictedHead`."""
        return

    def _log_odds(self, output: Tensor) -> tuple[Tensor, Tensor]:
        return self._whole.log_odds(output, self.label or 0)


class RegionHead(RestrictedHead):
    """The answers of a voxelwise head at the voxels predicted as a label, inside of a mask, or both; other columns are zero."""

    spatial: ClassVar[bool] = True

    def __init__(self, whole: VoxelAnswers, label: int | None, mask: Tensor | None = None) -> None:
        super().__init__(whole, label, mask)
        self._answers = whole

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class; as many columns as the whole head."""
        return self._answers.root_within(output, self._where(output))

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """Sum over the voxels that `output` is asked about."""
        return self._answers.divergence_within(output, moved, self._where(output))

    def voxels(self, output: Tensor) -> Tensor:
        """See `RestrictedHead`."""
        return self._where(output).any(1).flatten(1).sum(1)

    def _where(self, output: Tensor) -> Tensor:
        """[B, C or 1, *spatial], True for the answers asked about."""
        inside = None if self.mask is None else self.mask[:, None].to(output.device)
        if self.label is None:
            return torch.ones_like(output[:, :1], dtype=torch.bool) if inside is None else inside
        predicted = self._answers.predicted(output, self.label)
        return predicted if inside is None else predicted & inside


class PartOfVolumesHead(RestrictedHead):
    """The volume of one label, the volumes inside of a mask, or both; of one label one column, grad V / sigma."""

    spatial: ClassVar[bool] = True
    columns_at_every_voxel: ClassVar[bool] = False

    def __init__(self, whole: VolumesOfLabels, label: int | None, mask: Tensor | None = None) -> None:
        super().__init__(whole, label, mask)
        self._volumes = whole

    def probabilities(self, output: Tensor) -> Tensor:
        """Expected volumes of all labels, inside of the mask if there is one, [B, C] float64."""
        return self._volumes.volumes(output, self._where())

    def square_root(self, output: Tensor) -> SquareRoot:
        """See the class."""
        return self._volumes.root_of(output, self.label, self._where())

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        """See `VolumesHead.divergence`."""
        return self._volumes.divergence_of(output, moved, self.label, self._where())

    def voxels(self, output: Tensor) -> Tensor | None:
        """The voxels of the mask; None without one: every voxel adds to an expected volume."""
        return None if self.mask is None else self.mask.flatten(1).sum(1)

    def _where(self) -> Tensor | None:
        return None if self.mask is None else self.mask[:, None]


def restricted(head: Head, label: int | None, mask: Tensor | None) -> Head:
    """The head of part of the answer: one class or label, by its number, or the voxels of a mask [B, *spatial], or both.

    Raises HeadError for a head that has no such part.
    """
    if label is None and mask is None:
        return head
    if isinstance(head, VoxelAnswers):
        return RegionHead(head, label, mask)
    if isinstance(head, VolumesOfLabels):
        return PartOfVolumesHead(head, label, mask)
    if mask is not None:
        raise HeadError(f"head {head.name!r} gives one answer an image, which no mask divides: leave answer_mask out.")
    if head.answers == "output":
        raise HeadError(f"head {head.name!r} has no classes or labels of which one could be asked for: leave answer= out.")
    return LabelHead(head, label)
