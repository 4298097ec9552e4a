"""Gradients of residual shortcuts of type A, which the code that most 3D ResNets come from cuts.

A shortcut of type A has no weights: it takes every stride-th voxel and appends channels of zeros. 3D-ResNets-PyTorch wrote it
with `torch.cat([out.data, zeros])`, and MedicalNet and MONAI took that over (`ResNet(shortcut_type="A")`, which MONAI sets for
MedicalNet's resnet18 and resnet34). `.data` hides the path from autograd, so that every gradient of such a network is wrong.
During a decomposition these shortcuts are replaced by one that has the same output, and its gradient.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("_downsample_basic_block", "downsample_basic_block")  # of the function in MONAI, and in MedicalNet
ATTRIBUTE = "downsample"  # of a residual block
_CHANGE = threading.Lock()  # around each replacement: several threads may decompose one network


class WholeShortcut:
    """A shortcut of type A with its gradient; `original` computes its output.

    users: decompositions that run with it now. checked: True once its output was equal to the original's, False if it was not and
    the original is used instead, None before the first call.
    """

    def __init__(self, original: partial[Tensor]) -> None:
        self.original = original
        self.users = 0
        self.checked: bool | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """Every stride-th voxel of `image` [B, channel, *spatial], and the further channels of the original's output."""
        with torch.no_grad():
            given = self.original(image)
        if self.checked is False:
            return given
        steps = [slice(None, None, self.original.keywords["stride"])] * (image.ndim - 2)
        kept = image[(slice(None), slice(None), *steps)]
        whole = torch.cat([kept, given[:, kept.shape[1] :]], dim=1)
        if self.checked is None:
            self.checked = whole.dtype == given.dtype and torch.allclose(whole, given, rtol=0, atol=0, equal_nan=True)
        return whole if self.checked else given


@contextmanager
def whole_shortcuts(network: Callable[..., Any]) -> Iterator[Callable[[], list[str]]]:
    """Context in which shortcuts of type A of a network pass gradients on; afterwards its modules are what they were.

    Yields a function that says, one sentence a kind, what was corrected in the passes so far.
    """
    blocks = _blocks(network)
    replaced = [_replace(block) for block in blocks]
    try:
        yield lambda: _sentences(network, blocks, replaced)
    finally:
        for block, shortcut in zip(blocks, replaced, strict=True):
            _give_back(block, shortcut)


def _blocks(network: Callable[..., Any]) -> list[nn.Module]:
    """Blocks whose shortcut is of type A, or replaced already."""
    if not isinstance(network, nn.Module):
        return []
    return [module for module in network.modules() if _is_cut(vars(module).get(ATTRIBUTE))]


def _is_cut(shortcut: object) -> bool:
    if isinstance(shortcut, WholeShortcut):
        return True
    if not isinstance(shortcut, partial) or getattr(shortcut.func, "__name__", "") not in NAMES:
        return False
    return not shortcut.args and isinstance(shortcut.keywords.get("stride"), int)


def _replace(block: nn.Module) -> WholeShortcut:
    with _CHANGE:
        shortcut = vars(block)[ATTRIBUTE]
        if not isinstance(shortcut, WholeShortcut):
            shortcut = WholeShortcut(shortcut)
            vars(block)[ATTRIBUTE] = shortcut
        shortcut.users += 1
        return shortcut


def _give_back(block: nn.Module, shortcut: WholeShortcut) -> None:
    """Put the original in place once no decomposition uses the replacement; what somebody else put there stays."""
    with _CHANGE:
        shortcut.users -= 1
        if shortcut.users == 0 and vars(block).get(ATTRIBUTE) is shortcut:
            vars(block)[ATTRIBUTE] = shortcut.original


def _sentences(network: Callable[..., Any], blocks: list[nn.Module], replaced: list[WholeShortcut]) -> list[str]:
    corrected = {id(block) for block, shortcut in zip(blocks, replaced, strict=True) if shortcut.checked}
    if not corrected or not isinstance(network, nn.Module):
        return []
    names = [f"'{name}.{ATTRIBUTE}'" if name else f"'{ATTRIBUTE}'" for name, m in network.named_modules() if id(m) in corrected]
    return [
        f"shortcuts of type A, whose gradient the network's own code cuts with .data, have their gradient: {', '.join(names)}"
    ]
