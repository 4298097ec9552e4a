"""The Kullback-Leibler divergence of nearby answers, without cancellation."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST_CHANGE = 700.0  # logit change whose exponential float64 holds


def log_partition_remainder(p: Tensor, change: Tensor) -> Tensor:
    """log sum_c p_c exp(d_c) - sum_c p_c d_c over the last axis, without cancelling for tiny p or tiny d.

    Written as [log1p(w) - w] + sum_c p_c (expm1(d_c) - d_c) with w = sum_c p_c expm1(d_c). Where w > 1 the brackets would
    cancel each other or overflow, and the plain log-sum-exp, at least log 2 there, steps in.
    """
    small = change.clamp(max=LARGEST_CHANGE)
    excess = (p * torch.expm1(small)).sum(-1)
    careful = (torch.log1p(excess) - excess) + (p * (torch.expm1(small) - small)).sum(-1)
    rest = 1 - p.sum(-1, keepdim=True)  # weight on a change of zero that a one-sided caller leaves out
    log_terms = torch.cat([p.log() + change, rest.clamp_min(0).log()], dim=-1)
    plain = torch.logsumexp(log_terms, dim=-1) - (p * change).sum(-1)
    return torch.where((excess > 1) | (change > LARGEST_CHANGE).any(-1), plain, careful)
