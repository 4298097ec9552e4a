"""The segmentation that a map of logits states: one label at each voxel."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.heads.base import LabelRule


def label_map(logits: Tensor, rule: LabelRule) -> Tensor:
    """Number of the label at each voxel of a map of logits [B, C, *spatial], as int16 [B, *spatial].

    rule: "largest", for exclusive labels: the number, from 0, of the likeliest channel, the first of equal ones. "above half",
    for independent labels: the number, from 1, of the likeliest channel where its probability is above one half, else 0.
    """
    largest, channel = logits.max(dim=1)
    if rule == "largest":
        return channel.to(torch.int16)
    return torch.where(largest > 0, channel + 1, 0).to(torch.int16)
