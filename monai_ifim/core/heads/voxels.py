"""Maps of an answer at every voxel, computed block by block, so that no float64 copy of a whole map is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.heads.square_root import SquareRoot

BLOCK_ELEMENTS = 2**18  # of a block in float64: 2 MiB, which fit a processor's cache


def voxel_blocks(*maps: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same voxels of every map [B, C, *spatial], some at a time: views [B, C, n]."""
    flat = [each.flatten(2) for each in maps]
    step = max(1, BLOCK_ELEMENTS // max(1, flat[0][:, :, :1].numel()))
    for start in range(0, flat[0].shape[2], step):
        yield tuple(each[:, :, start : start + step] for each in flat)


def summed(parts: Iterator[Tensor]) -> Tensor:
    """The sum of tensors of one shape, of which there is one at least."""
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def blocks_within(*maps: Tensor, where: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """`voxel_blocks` of maps, followed by which of the voxels count, bool [B, C or 1, n], None for all.

    where: bool [B, C or 1, *spatial], None for all.
    """
    if where is None:
        yield from ((*blocks, None) for blocks in voxel_blocks(*maps))
    else:
        yield from voxel_blocks(*maps, where)


def inside(values: Tensor, counted: Tensor | None) -> Tensor:
    """The values, zero where `counted` is False; None leaves them."""
    return values if counted is None else values * counted


def map_of(output: Tensor, values: Callable[[Tensor], Tensor], dtype: torch.dtype, where: Tensor | None = None) -> Tensor:
    """`values` of every block of an output [B, C, *spatial], zero outside of `where` (`blocks_within`), as one map of this dtype
    where `as_float64` computes."""
    result = torch.empty(output.shape, dtype=dtype, device="cpu" if output.device.type == "mps" else output.device)
    for block, place, counted in blocks_within(output, result, where=where):
        place.copy_(inside(values(block), counted))
    return result


def root_by_blocks(
    output: Tensor, root_of: Callable[[Tensor, Tensor | None], SquareRoot], where: Tensor | None = None
) -> SquareRoot:
    """The root of answers that are independent from voxel to voxel, from the roots of blocks of an output [B, C, *spatial].

    root_of: the root of logits [B, C, n], and of which of them count (`blocks_within`); its columns are those of every voxel,
    one kind after the other. The roots are made again for each product, which takes no time beside a pass of the network and
    saves several float64 copies of the output.
    """
    batch, voxels = output.shape[0], output[0, 0].numel()
    one = root_of(output.flatten(2)[:, :, :1], None)
    device = "cpu" if output.device.type == "mps" else output.device
    scales, score = (torch.empty(batch, one.columns, voxels, dtype=torch.float64, device=device) for _ in range(2))
    for block, lengths, shares, counted in blocks_within(output, scales, score, where=where):
        root = root_of(block, counted)
        lengths.copy_(root.scales.reshape(lengths.shape))
        shares.copy_(root.score.reshape(shares.shape))

    def multiply(v: Tensor) -> Tensor:
        result = torch.empty(output.shape, dtype=torch.float64, device=device)
        for block, weights, place, counted in blocks_within(output, v.reshape(scales.shape), result, where=where):
            place.copy_(root_of(block, counted).product(weights.flatten(1)))
        return result

    def adjoint(w: Tensor) -> Tensor:
        result = torch.empty_like(scales)
        for block, change, place, counted in blocks_within(output, w, result, where=where):
            place.copy_(root_of(block, counted).adjoint_product(change).reshape(place.shape))
        return result.flatten(1)

    return SquareRoot(scales.flatten(1), score.flatten(1), one.build, multiply, adjoint)
