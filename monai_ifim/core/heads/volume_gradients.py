"""Gradients of the volumes of exclusive labels: their lengths over some voxels, and all of them from the columns of a factor."""

from __future__ import annotations

import torch
from torch import Tensor

from monai_ifim.core.heads.voxels import inside


def pair_squares(shares: Tensor, firsts: Tensor, second: Tensor, a: Tensor, b: Tensor, counted: Tensor | None) -> Tensor:
    """Squared lengths [B, r] of a_j g_j + b_j g_m over some voxels, g_c[k] = p_c (delta_ck - p_k).

    shares: p [B, C, n]; firsts: the labels j [B, r]; second: the label m [B, 1]; a, b: [B, r]; counted: as `voxels.inside`. The
    labels besides these two enter through their squares alone. 1 - p of the likeliest label of a voxel is the sum of the others,
    so that nothing is lost where p rounds to one.
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
        found = parts[0].square() + parts[1].square() + (one + two).square() * rest
        squares.append(inside(found, None if counted is None else counted[:, 0]).sum(1))
    return torch.stack(squares, dim=1)


def all_gradients(others: Tensor, largest: Tensor, s: Tensor, k: Tensor) -> Tensor:
    """Coefficients [B, C, r] of the gradients of all C exclusive volumes in the columns A_j = G_j / s_j + k s_j sum_i G_i.

    others: labels j of the columns [B, r]; largest: the label left out [B, 1], whose gradient is minus the sum of the others.
    s: [B, r]; k: [B, 1]. With B_j = s_j A_j the sum T of the others is sum_i B_i / (1 + k |s|^2), and
    G_j = B_j - k s_j^2 T.
    """
    total = s / (1 + (k * s.square()).sum(1, keepdim=True))
    own = torch.diag_embed(s) - (k * s.square())[:, :, None] * total[:, None]
    found = s.new_zeros(s.shape[0], s.shape[1] + 1, s.shape[1])
    found.scatter_(1, others[..., None].expand_as(own), own)
    return found.scatter_(1, largest[..., None].expand(-1, 1, s.shape[1]), -total[:, None])
