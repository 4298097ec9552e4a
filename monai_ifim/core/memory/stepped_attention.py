"""Attention as matrix products and a softmax, which have second derivatives: PyTorch's fused kernels have none."""

from __future__ import annotations

from contextlib import AbstractContextManager

from torch.nn.attention import SDPBackend, sdpa_kernel

from monai_ifim.core.process_switch import ProcessSwitch


def _math_kernel() -> AbstractContextManager[object]:
    return sdpa_kernel(SDPBackend.MATH)


STEPPED_ATTENTION = ProcessSwitch(_math_kernel)  # PyTorch chooses the kernels for all threads
