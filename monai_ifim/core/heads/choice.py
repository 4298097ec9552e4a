"""Which head a name stands for, given the output."""

from __future__ import annotations

from torch import Tensor

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.outputs import HIDDEN, sums_to_one
from monai_ifim.core.heads.probabilities import BernoulliProbabilityHead, CategoricalProbabilityHead
from monai_ifim.core.heads.registry import check_head, head_class
from monai_ifim.core.heads.volumes import VolumesOfLabels
from monai_ifim.options import VOLUME_TOLERANCE


def answers_at_every_voxel(head: str | Head) -> bool:
    """True if the head, or the one that a name stands for, reads a map [B, C, *spatial]."""
    return _kind_of(head).spatial


def columns_at_every_voxel(head: str | Head) -> bool:
    """True if the square root of the head, or of the one that a name stands for, has columns for every voxel of a map."""
    return _kind_of(head).columns_at_every_voxel


def _kind_of(head: str | Head) -> type[Head]:
    """The class of the head; that of a classifier for "auto", which reads no maps."""
    if isinstance(head, Head):
        return type(head)
    return CategoricalHead if head == "auto" else head_class(head)


def resolve_head(
    head: str | Head,
    output: Tensor,
    operation: str | None = None,
    tolerance: str = VOLUME_TOLERANCE,
    voxel_volume: Tensor | None = None,
) -> Head:
    """The head that `head` names for this output [B, C]; raises HeadError with the cure where that is uncertain.

    "auto" reads two or more outputs that no softmax or sigmoid made as the logits of exclusive classes and refuses all
    else: one output may be a binary logit or a regression. operation: "sigmoid" or "softmax" where one is known to have made
    the output. tolerance, voxel_volume: of volumes, the latter in ml for each image [B], None where it is not known.
    """
    check_head(head)
    if isinstance(head, Head):
        chosen = head
    elif head == "auto":
        chosen = _automatic_head(output, operation)
    elif head == "probabilities":
        exclusive = operation == "softmax" or (operation != "sigmoid" and output.shape[1] > 1 and sums_to_one(output))
        chosen = CategoricalProbabilityHead() if exclusive else BernoulliProbabilityHead()
    else:
        chosen = head_class(head)()
    if isinstance(chosen, VolumesOfLabels):
        chosen = chosen.measured(tolerance, voxel_volume)
    elif tolerance != VOLUME_TOLERANCE:
        raise HeadError(
            f"volume_tolerance={tolerance!r} is one of volumes, and head {chosen.name!r} gives none: leave it out, or pass "
            "head='volumes' or 'volumes_bernoulli'."
        )
    chosen.validate(output, operation)
    return chosen


def _automatic_head(output: Tensor, operation: str | None) -> Head:
    if operation == "sigmoid":
        raise HeadError(
            "head='auto': the network's last operation is a sigmoid: pass head='probabilities', or remove the "
            "sigmoid and pass head='bernoulli', which keeps more digits."
        )
    if operation == HIDDEN and bool(((output >= 0) & (output <= 1)).all()):
        raise HeadError(
            "head='auto' cannot see what made this network's output, and all its values lie in [0, 1]: pass "
            "head='probabilities' where they are probabilities, or head='categorical' or 'bernoulli' for logits."
        )
    if output.shape[1] == 1:
        raise HeadError(
            "head='auto' cannot tell what a single output is: pass head='bernoulli' for the logit of a binary answer, "
            "head='probabilities' for its sigmoid, or head='gaussian' for a regression."
        )
    return CategoricalHead()
