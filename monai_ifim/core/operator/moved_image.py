"""The network at images near one image of a batch, by forward passes without a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from monai_ifim.core.heads.base import Head
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.operator.inner_precision import InnerPrecision
from monai_ifim.core.operator.predictor import Predictor


@dataclass
class MovedImage:
    """Outputs of a network at x + h d, for one image x [1, channel, *spatial] of a batch.

    predictor: of the batch; item: number of the image in it. output: f(x), [1, *output]. together: images that may share a
    pass; one, once a pass with more has failed. dtype: of the passes, None for that of the image. context: of each pass.
    coarsest: machine epsilon of what the network converts values to inside, where that is known. passes: forward passes made so
    far.
    """

    predictor: Predictor
    item: int
    image: Tensor
    output: Tensor
    head: Head
    together: int
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    dtype: torch.dtype | None = None
    coarsest: float = 0.0
    passes: int = 0

    @cached_property
    def root(self) -> SquareRoot:
        """The head's square root S at x."""
        return self.head.square_root(self.output)

    @property
    def eps(self) -> float:
        """Machine epsilon of images and weights in the passes, or of coarser values inside the network."""
        return max(float(torch.finfo(self.dtype or self.image.dtype).eps), self.coarsest)

    def in_dtype(self, dtype: torch.dtype) -> MovedImage:
        """The same with the image and copies of the weights in `dtype`, without autocast, and no pass made yet."""
        predictor = self.predictor if dtype == self.image.dtype else replace(self.predictor, dtype=dtype)
        return replace(self, predictor=predictor, dtype=dtype, context=_full_precision(self.image.device), coarsest=0.0, passes=0)

    def find_inner_precision(self) -> None:
        """Find what the network converts values to inside, by one more pass."""
        with InnerPrecision() as inner:
            self.at(torch.zeros_like(self.image), [0.0])
        self.coarsest = inner.eps

    def at(self, displacement: Tensor, steps: Sequence[float]) -> Tensor:
        """Outputs [n, *output] float64 at x + steps[i] times the displacement [1, channel, *spatial]."""
        try:
            return self._outputs(displacement, steps)
        except Exception:  # a network that takes one image only may raise anything
            if self.together == 1:
                raise
            self.together = 1
            return self._outputs(displacement, steps)

    def _outputs(self, displacement: Tensor, steps: Sequence[float]) -> Tensor:
        image = self.image.to(self.dtype or self.image.dtype)
        direction, answers = displacement.to(image), []
        for start in range(0, len(steps), self.together):
            images = torch.cat([image + step * direction for step in steps[start : start + self.together]])
            items = torch.full((images.shape[0],), self.item, device=image.device)
            with torch.no_grad(), self.context():
                answers.append(as_float64(self.predictor(images, items)))
            self.passes += images.shape[0]
        return torch.cat(answers)


def _full_precision(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Context without autocast and without TensorFloat-32, whose rounding would drown a small difference."""

    @contextmanager
    def context() -> Iterator[None]:
        with torch.autocast(device.type, enabled=False):
            if device.type != "cuda":
                yield
                return
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                with torch.backends.cudnn.flags(allow_tf32=False):
                    yield
            finally:
                torch.set_float32_matmul_precision(before)

    return context
