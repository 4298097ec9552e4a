"""Products with J = dz/dx at one batch of images: J^T c from the graph of one forward pass, and J u."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from monai_ifim.core.errors import NetworkError
from monai_ifim.core.heads.outputs import as_float64
from monai_ifim.core.memory.allocation import copy_of
from monai_ifim.core.memory.stepped_attention import STEPPED_ATTENTION
from monai_ifim.core.operator.batch_norm import correct_gradients
from monai_ifim.core.operator.failing_layers import (
    layer_of_error,
    layer_without_backward,
    layer_without_second_derivative,
    layers_with_own_backward,
)
from monai_ifim.core.operator.refusals import IN_BACKWARD, cure_of, said_by, stays

_FORWARD_MODE = threading.RLock()  # levels of dual numbers, and filters of warnings, are those of the whole process
FIRST_AMPLIFICATION = 2.0**12  # first factor of cotangents in float16, raised or lowered until gradients fit its range
AMPLIFICATION_STEP = 2.0**4
LARGEST_AMPLIFICATION = 2.0**40
HALF_TARGET = 2.0**4  # largest gradient entry aimed at: far below float16's 65504, far above its 6e-8


class Jacobian:
    """J of each image of a batch; all images share the passes.

    forward: images [B, channel, *spatial] -> output [B, *output], called inside `passes`, a context for precision and memory.
    advance: called with the numbers of products made and expected, for progress.
    dual_numbers: how J u is computed: by one pass with dual numbers, which saves nothing (True), or as the derivative of the
    backward pass, which is faster and keeps a second graph (False); if one fails, the other is tried.
    network: that `forward` calls, whose layers errors name.
    products: number of products J^T c and J u made; expected: their final number, if known. reached: True once a gradient
    reached the image.
    """

    def __init__(
        self,
        forward: Callable[[Tensor], Tensor],
        image: Tensor,
        passes: Callable[[], AbstractContextManager[object]] = nullcontext,
        advance: Callable[[int, int | None], None] = lambda done, expected: None,
        dual_numbers: bool = False,
        network: Callable[..., Any] | None = None,
    ) -> None:
        self._forward, self._passes, self._advance = forward, passes, advance
        self._network = network or forward
        self.image = image
        self.products = 0
        self.expected: int | None = None
        self.reached = False
        self._amplification: float | None = None
        self._linearised: tuple[Tensor, Tensor] | None = None
        self._dual_numbers, self._attention_in_steps = dual_numbers, False
        self._leaf = image.detach().requires_grad_(True)
        self._output = self._forward_with_graph()
        self.output = self._output.detach()

    @property
    def differentiable(self) -> bool:
        """True if the output has a graph."""
        return self._output.requires_grad

    @property
    def graph(self) -> Tensor:
        """The output with its graph."""
        return self._output

    def transposed(self, cotangent: Tensor, last: bool = False) -> tuple[Tensor, float]:
        """J^T c times a factor, [B, D] in the image's dtype, and the factor, for unit cotangents c [B, *output] float64.

        The factor is 1 except in float16. The product is zero where no gradient reaches the image. last: free the graph.
        Raises NetworkError if there is no backward pass.
        """
        factor = self._half_precision_factor(cotangent) if self._in_half_precision else 1.0
        gradient = self._gradient(cotangent * factor if factor != 1.0 else cotangent, last)
        self._count()
        if gradient is None:
            return torch.zeros_like(self.image).flatten(1), factor
        self.reached = True
        return gradient.flatten(1), factor

    def product(self, tangent: Tensor) -> Tensor:
        """J u, [B, *output] float64, for images u [B, channel, *spatial]; raises NetworkError if neither way works."""
        try:
            moved = self._moved(tangent)
        except _NoWayError:
            if not self._attention_in_steps:
                self._take_attention_in_steps()
            moved = self._moved_otherwise(tangent)
        self._count()
        return moved

    def _moved_otherwise(self, tangent: Tensor) -> Tensor:
        try:
            return self._moved(tangent)
        except _NoWayError as error:
            raise self._without_product(error) from error

    def layers_with_own_backward(self) -> tuple[str, ...]:
        """Functions with a backward pass written in Python, each with its layer, for errors."""
        return layers_with_own_backward(self._forward, self._passes, self.image, self._network)

    def _moved(self, tangent: Tensor) -> Tensor:
        ways = (self._forward_mode, self._double_backward) if self._dual_numbers else (self._double_backward, self._forward_mode)
        refused: list[Exception] = []
        for way in ways:
            try:
                moved = as_float64(way(tangent))
            except (RuntimeError, NetworkError) as error:
                if isinstance(error, RuntimeError) and stays(error):
                    raise
                refused.append(error)
                continue
            if refused:
                self.use_other_way()
            return moved
        raise _NoWayError(*(refused if self._dual_numbers else reversed(refused)))

    def _without_product(self, error: _NoWayError) -> NetworkError:
        forward_mode, double_backward = error.args
        first = layer_of_error(forward_mode.__cause__ or forward_mode, self._network)
        second = layer_without_second_derivative(self._forward, self._passes, self.image, self._network)
        return NetworkError(
            f"the network has neither forward-mode derivatives ({first}: {said_by(forward_mode)}) nor a differentiable backward "
            f"pass ({second}: {said_by(double_backward)}): use method='exact' or 'adaptive'."
        )

    def _without_backward(self, error: RuntimeError) -> NetworkError:
        layer = layer_without_backward(self._forward, self._passes, self.image, self._network)
        cure = cure_of(error, IN_BACKWARD) or "pass a PyTorch module or TorchScript made of differentiable operations."
        return NetworkError(f"{layer} has no backward pass: {said_by(error)}: {cure}")

    def _take_attention_in_steps(self) -> None:
        """Repeat the forward pass with attention that has second derivatives."""
        fused, self._attention_in_steps = self._passes, True

        @contextmanager
        def passes() -> Iterator[None]:
            with fused(), STEPPED_ATTENTION.held():
                yield

        self.release()  # before the next graph, for the memory budget
        self._passes = passes
        self._output = self._forward_with_graph()

    def _forward_with_graph(self) -> Tensor:
        with self._passes():
            output = self._forward(copy_of(self._leaf))  # a copy, so that a network may write into its input
        try:
            self._backward = correct_gradients(output)
        except RuntimeError as error:  # what a layer saved was overwritten
            raise self._without_backward(error) from error
        return output

    def use_other_way(self) -> None:
        """Compute J u the other way from now on."""
        self._dual_numbers = not self._dual_numbers

    def release(self) -> None:
        """Free the graph."""
        self._output, self._linearised = self.output, None

    def _forward_mode(self, tangent: Tensor) -> Tensor:
        with _FORWARD_MODE, torch.no_grad(), forward_ad.dual_level(), self._passes(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            output = self._forward(forward_ad.make_dual(self.image.clone(), tangent))  # type: ignore[no-untyped-call]
            moved = forward_ad.unpack_dual(output).tangent  # type: ignore[no-untyped-call]
        return torch.zeros_like(self.output) if moved is None else moved

    def _double_backward(self, tangent: Tensor) -> Tensor:
        """J^T w is linear in w, so its derivative along u is J u."""
        if self._linearised is None:
            w = torch.zeros_like(self.output).requires_grad_(True)
            with self._backward():
                (gradient,) = torch.autograd.grad(self._output, self._leaf, w, create_graph=True)
            self._linearised = (gradient, w)
        gradient, w = self._linearised
        with self._backward():
            (moved,) = torch.autograd.grad(gradient, w, tangent, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.output) if moved is None else moved

    def _gradient(self, cotangent: Tensor, last: bool) -> Tensor | None:
        try:
            with self._backward():
                (gradient,) = torch.autograd.grad(
                    self._output, self._leaf, cotangent.to(self._output), retain_graph=not last, allow_unused=True
                )
        except RuntimeError as error:
            if stays(error):
                raise
            raise self._without_backward(error) from error
        return gradient

    @property
    def _in_half_precision(self) -> bool:
        kind = self.image.device.type
        with self._passes():
            autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return torch.float16 in (self.image.dtype, self.output.dtype, autocast)

    def _half_precision_factor(self, cotangent: Tensor) -> float:
        """Power of two that keeps float16 gradients between overflow and underflow; found once, with the first cotangent."""
        if self._amplification is None:
            factor, largest = FIRST_AMPLIFICATION, self._largest_gradient(cotangent, FIRST_AMPLIFICATION)
            while not largest < float("inf") and factor > 1 / LARGEST_AMPLIFICATION:
                factor /= AMPLIFICATION_STEP
                largest = self._largest_gradient(cotangent, factor)
            while 0 < largest < HALF_TARGET and factor < LARGEST_AMPLIFICATION:
                largest = self._largest_gradient(cotangent, factor * AMPLIFICATION_STEP)
                if not largest < float("inf"):  # a gradient inside the network is larger than that at the image
                    break
                factor *= AMPLIFICATION_STEP
            self._amplification = factor
        return self._amplification

    def _largest_gradient(self, cotangent: Tensor, factor: float) -> float:
        gradient = self._gradient(cotangent * factor, last=False)
        self._count()
        return 0.0 if gradient is None else float(gradient.detach().abs().amax().float())

    def _count(self) -> None:
        self.products += 1
        self._advance(self.products, self.expected)


class _NoWayError(Exception):
    """J u failed in forward mode and by double backward; args: the two errors."""
