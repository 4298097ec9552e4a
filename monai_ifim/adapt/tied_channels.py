"""Channels of a network's input that the preprocessing makes of one grey image, and the network as a function of that image.

Where every change of what was read changes channel c by t_c times what it changes the first channel, the network sees one grey
image g: x = x0 + t g, and the Fisher information of g is T^T F T with T = t (x) I (docs/theory.md). That is what `decompose`
finds of g -> f(x + t (g - x_1)), whose backward pass sums over the channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_ifim.adapt.scanner.step_checks import SMALL_SAMPLE, sample_of
from monai_ifim.core.operator.predictor import Predictor, owner_of

LARGEST_CHANGE = 0.1  # share by which a value of the image as read is changed at most
EQUALITY = 1e-4  # of the largest effect, by which the effects on two channels may differ after scaling
DIGITS = 6  # of a factor: float32 tells no more, and the same preprocessing gives every image the same factors

EACH_ASKED_FOR = "files are asked for channel by channel"
NOT_LOOKED_FOR = "no tie was looked for"
APART = "a change of the input does not change its channels by constant factors of one another"
UNMOVED = "a change of the input does not change all of its channels"
REGRIDDED = "the preprocessing gives a changed input another grid"
FAILING = "the preprocessing fails on a changed input"

TIED = "the channels are one grey image: where the first changes by 1, each changes by its factor; maps are of the first"
EACH = "each channel has maps of its own"

Run = Callable[[MetaTensor], Tensor]


@dataclass(frozen=True)
class Tie:
    """The network's input [channel, *spatial] of a case whose channels are one grey image, its first channel.

    factors: by which each channel changes where the first changes by 1.
    """

    image: MetaTensor
    factors: tuple[float, ...]

    @property
    def grey(self) -> MetaTensor:
        """The grey image [1, *spatial], in the unit of the first channel, with the metadata of the whole."""
        grey = MetaTensor(self.image.as_subclass(Tensor)[:1].clone())
        grey.copy_meta_from(self.image)
        return grey


class TiedNetwork(nn.Module):
    """A network as a function of grey images [B, 1, *spatial], at the inputs that they belong to.

    ends_in: the network, whose last operation is this one's. At an input's own grey image the network sees that very input.
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        super().__init__()
        self.ends_in = Predictor(owner_of(network), 1).bare
        self.training = self.ends_in.training if isinstance(self.ends_in, nn.Module) else False

    def forward(self, grey: Tensor, images: Tensor, factors: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The network's output for grey images; images [B, channel, *spatial] and factors [B, channel]: of their ties; args,
        kwargs: of the network."""
        each = factors.reshape(*factors.shape, *[1] * (images.ndim - 2))
        return self.ends_in(images + each * (grey - images[:, :1]), *args, **kwargs)


def described_tie(tie: Tie | str | None, channels: int) -> dict[str, Any] | None:
    """A tie, or in words why there is none, as plain data for records; channels: of the decomposed image."""
    if tie is None:
        return None
    if isinstance(tie, Tie):
        return {"channels": len(tie.factors), "factors": list(tie.factors), "meaning": TIED}
    return {"channels": channels, "factors": None, "meaning": f"{EACH}: {tie}"}


def tied_network(
    network: Callable[..., Any], ties: Sequence[Tie | str | None], device: torch.device | str
) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """The network of a batch of images, and its further arguments: of their grey images if they are tied, else itself."""
    tied = [tie for tie in ties if isinstance(tie, Tie)]
    if not tied:
        return network, ()
    images = torch.stack([tie.image.as_subclass(Tensor) for tie in tied]).to(device)
    return TiedNetwork(network), (images, torch.tensor([tie.factors for tie in tied], dtype=images.dtype, device=device))


def find_tie(run: Run, read: MetaTensor, image: MetaTensor) -> Tie | str:
    """The tie of the channels of `image` [channel, *spatial], the network's input; in words, why there is none.

    run: makes such inputs of images like `read` [channel, *spatial], as it was read, and leaves its argument as it is. A part of
    the image is tried first, because most images of several channels have no tie.
    """
    sample = sample_of(read, lambda part: MetaTensor(run(part)), SMALL_SAMPLE)
    found = _attempt(lambda: _factors(run(sample), run(_changed(sample))))
    if isinstance(found, tuple) and sample.shape != read.shape:
        found = _attempt(lambda: _factors(image, run(_changed(read))))
    return found if isinstance(found, str) else Tie(image, found)


def _attempt(measure: Callable[[], tuple[float, ...] | str]) -> tuple[float, ...] | str:
    try:
        with torch.no_grad():
            return measure()
    except Exception:  # the steps are anybody's, and may refuse an image that is like no other
        return FAILING


def _changed(read: MetaTensor) -> MetaTensor:
    """The image with every value, of each channel by itself, larger by a seeded random share; zeros stay zeros.

    All shares are positive, so that a mean of the image changes too.
    """
    shares = torch.rand(read.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    moved: MetaTensor = read.detach().clone()
    moved[:] = read.detach().as_subclass(Tensor) * (1 + LARGEST_CHANGE * shares.to(read.device))
    return moved


def _factors(before: Tensor, after: Tensor) -> tuple[float, ...] | str:
    """Factor of each channel's change from that of the first, of network inputs [channel, *spatial]; or why there is none."""
    if before.shape != after.shape:
        return REGRIDDED
    pairs = [(old.float(), new.float()) for old, new in zip(_channels(before), _channels(after), strict=True)]
    first, factors = pairs[0][1] - pairs[0][0], list[float]()
    for old, new in pairs:
        effect = new - old
        rounding = 16 * torch.finfo(torch.float32).eps * float(torch.maximum(old.abs(), new.abs()).amax())
        largest = float(effect.abs().amax())
        if not rounding < largest < math.inf:
            return UNMOVED
        factor = float(f"{_product(effect, first) / _product(first, first):.{DIGITS}g}")
        away = float((effect - factor * first).abs().amax())
        if factor == 0 or not away <= EQUALITY * largest + (1 + abs(factor)) * rounding:
            return APART
        factors.append(factor)
    return tuple(factors)


def _channels(values: Tensor) -> Sequence[Tensor]:
    return values.detach().as_subclass(Tensor).unbind(0)


def _product(one: Tensor, other: Tensor) -> float:
    return float((one * other).sum(dtype=torch.float64))
