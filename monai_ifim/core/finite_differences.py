"""Sensitivity along named coordinates of whatever turns images into outputs: central differences, forward passes only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monai_ifim.core.answer import AnswerFacts, asked_head
from monai_ifim.core.coordinates import BoundFamilies, Coordinates, Family, Place, as_families
from monai_ifim.core.errors import ImageError, NetworkError
from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.memory.row_storage import HeldRow
from monai_ifim.core.pullback import OutputMoves, gradient_kind, tangent_norms
from monai_ifim.core.settings import Settings

LEVELS = 5  # steps of the extrapolation, each half of the one before
FIRST_SHARE = 0.02  # of the image's own spread that the first step moves it by
ROUNDING = 4.0  # errors of an output, in units of the rounding of its largest entry


def sensitivity_along(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    coordinates: Family | Sequence[Family],
    *,
    head: str | Head = "auto",
    places: Sequence[Place] = (),
) -> Coordinates:
    """`Decomposition.coordinates` without derivatives, for networks that have none (ONNX, TensorRT, a server).

    Each J t_i is extrapolated from central differences of the output along the finite move, at steps that halve (Ridders,
    Advances in Engineering Software 4(2), 1982), and `fisher_error` follows from the change at the best step.

    Args:
        predict: images [B, channel, *spatial] to outputs [B, C], or maps of labels; called 10 times for each coordinate and once.
        image: [B, channel, *spatial], floating point.
        coordinates: families of changes.
        head: as in `decompose`.
        places: of the images, for families in millimetres; by default unknown.

    Raises IFIMError where image, head or families do not fit, and NetworkError for outputs that are not finite.
    """
    if not isinstance(image, Tensor) or not image.is_floating_point() or image.ndim not in (4, 5):
        raise ImageError("the image is no floating-point tensor [B, channel, H, W] or [B, channel, H, W, D]: convert it.")
    plain = image.detach().as_subclass(Tensor)
    families = as_families(coordinates)
    bound = BoundFamilies.of(families, plain, places)
    with torch.no_grad():
        output = _finite(predict(plain.clone()))
        chosen = asked_head(Settings(head), AnswerFacts().of_batch(plain), output)
        root = chosen.square_root(output)
        moves, off = OutputMoves(chosen, root, output, HeldRow), OutputMoves(chosen, root, output, HeldRow)
        norms = []
        for first, tangents in bound.tangents():
            for number, tangent in enumerate(tangents.unbind(1), start=first):
                norms.append(tangent_norms(tangent[:, None])[:, 0])
                found = _extrapolated(predict, bound, number, _first_step(plain, tangent))
                moves.append(found.change, torch.ones_like(norms[-1]))
                off.append(found.error, torch.ones_like(norms[-1]))
    fisher, error = moves.fisher(), off.fisher().diagonal(dim1=1, dim2=2)
    lengths = fisher.diagonal(dim1=1, dim2=2).sqrt()
    bounds = 2 * lengths * error.sqrt() + error
    return Coordinates(
        bound.names, bound.units, gradient_kind(chosen), fisher, moves.gradient(), torch.stack(norms, dim=1), bounds
    )


@dataclass(frozen=True)
class _Derivative:
    """J t of a batch, [B, *output] float64, and by how much it changed at the best step of the extrapolation."""

    change: Tensor
    error: Tensor


def _first_step(image: Tensor, tangent: Tensor) -> float:
    """A step that moves each image by a small share of its own spread, in units of the coordinate."""
    spread = (image - image.flatten(1).mean(1).reshape(-1, *[1] * (image.ndim - 1))).norm()
    length = tangent.norm()
    return float(FIRST_SHARE * spread / length) if length > 0 and spread > 0 else 1.0


def _extrapolated(predict: Callable[[Tensor], Tensor], bound: BoundFamilies, number: int, step: float) -> _Derivative:
    """Ridders' method: differences at halving steps, extrapolated to zero; of each image the entry that changes least."""
    rows: list[list[Tensor]] = []
    best: _Derivative | None = None
    for level in range(LEVELS):
        h = step / 2**level
        ahead, behind = (_finite(predict(bound.moved(number, amount))) for amount in (h, -h))
        rounding = ROUNDING * torch.finfo(ahead.dtype).eps * ahead.flatten(1).abs().amax(1) / h
        row = [(as_float64(ahead) - as_float64(behind)) / (2 * h)]
        for order in range(level):
            before = rows[-1][order]
            row.append(row[order] + (row[order] - before) / (4.0 ** (order + 1) - 1))
            change = torch.maximum((row[-1] - row[order]).abs(), (row[-1] - before).abs())
            best = _better(best, _Derivative(row[-1], change + rounding.reshape(-1, *[1] * (change.ndim - 1))))
        rows.append(row)
    return best or _Derivative(rows[0][0], torch.zeros_like(rows[0][0]))


def _better(one: _Derivative | None, other: _Derivative) -> _Derivative:
    """Of each image the derivative with the smaller error."""
    if one is None:
        return other
    smaller = other.error.flatten(1).norm(dim=1) < one.error.flatten(1).norm(dim=1)
    smaller = smaller.reshape(-1, *[1] * (one.error.ndim - 1))
    return _Derivative(torch.where(smaller, other.change, one.change), torch.where(smaller, other.error, one.error))


def _finite(output: Tensor) -> Tensor:
    """The output; raises NetworkError where it is no tensor [B, C, ...] of finite numbers."""
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise NetworkError("predict() has to return a tensor [B, C]: take the logits out of what the network returns.")
    if not bool(torch.isfinite(output).all()):
        raise NetworkError("predict() returned NaN or infinite values for an image or a moved one: check its input range.")
    return output
