"""A network as one of MONAI's inferers calls it: what an evaluator with that inferer predicts, as one network."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from monai.inferers import Inferer, SimpleInferer, SlidingWindowInferer
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from monai_ifim.core import IFIMError
from monai_ifim.core.operator.predictor import Predictor, owner_of

DEVICES = ("device", "sw_device", "cpu_thresh")  # arguments that take answers elsewhere than to the image


class InferredNetwork(nn.Module):
    """The network through an inferer, such as windows blended into one map by `SlidingWindowInferer`; its Fisher information is
    that of the whole answer, as a gradient flows through every window.

    network: module or callable; inferer: of MONAI, a copy of which works on the device of the image. ends_in: the network itself.
    """

    def __init__(self, network: Callable[..., Any], inferer: Inferer) -> None:
        super().__init__()
        self.ends_in, self.inferer = Predictor(owner_of(network), 1).bare, copy(inferer)
        for place in DEVICES:
            if hasattr(self.inferer, place):
                setattr(self.inferer, place, None)
        self.training = self.ends_in.training if isinstance(self.ends_in, nn.Module) else False

    def forward(self, image: Tensor, *args: Any, **kwargs: Any) -> Any:
        """What the inferer makes of images [B, channel, *spatial]; further arguments go to the network."""
        return self.inferer(image, self._answer, *args, **kwargs)

    def _answer(self, *args: Any, **kwargs: Any) -> Any:
        """The network's answer to a window, as copies: MONAI weights it in place, and autograd may need it as it was."""
        return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, self.ends_in(*args, **kwargs))


def dividing_inferer(inferer: Any, whose: str, cure: str) -> Inferer | None:
    """The inferer where it calls the network on parts of the image; None for none, and for one that calls it on the whole image.

    whose, cure: for the error. Raises IFIMError for an inferer that may do anything else.
    """
    inner = getattr(inferer, "inferer", inferer)  # that of an IFIMInferer
    if inner is None or isinstance(inner, SimpleInferer):
        return None
    if isinstance(inner, SlidingWindowInferer):
        return inner
    raise IFIMError(f"{whose}: its inferer is {type(inner).__name__}, through which gradients are not known to flow: {cure}.")


def called_by(inferer: Inferer | None, network: Any) -> Any:
    """The network as a `dividing_inferer` calls it; itself for None."""
    return network if inferer is None else InferredNetwork(network, inferer)
