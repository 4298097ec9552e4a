"""Passes in other precisions, asked for by name: closeness to float64, and gradients that half precision would lose."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import decompose
from monai_ifim.core.operator.precision import coarsest_eps

Networks = Callable[..., nn.Sequential]


def _image(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 1, 9, 7, generator=torch.Generator().manual_seed(2)).to(dtype)


@pytest.mark.parametrize(("precision", "digits"), [("float64", 1e-12), ("float32", 1e-4), ("bfloat16", 0.05), ("float16", 0.01)])
@pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
def test_precision_asked_for_gives_that_precision(cnn: Networks, precision: str, digits: float, method: str) -> None:
    network = cnn((1, 9, 7), 5)
    truth = decompose(cnn((1, 9, 7), 5).double(), _image(torch.float64), energy=1.0)
    d = decompose(network, _image(), precision=precision, method=method, energy=0.999, tolerance=0.01)  # type: ignore[arg-type]
    kept = d.eigenvalues.shape[1]
    torch.testing.assert_close(d.eigenvalues[:, 0], truth.eigenvalues[:, 0], rtol=digits, atol=0)
    assert kept <= 4
    assert d.record["settings"]["precision"] == precision
    assert all(p.dtype == torch.float32 and p.requires_grad for p in network.parameters())
    assert not torch.is_autocast_enabled("cpu")


def test_float64_from_float32_weights_has_float64_results(cnn: Networks) -> None:
    d = decompose(cnn((1, 9, 7), 5), _image(), precision="float64", locality=True)
    assert {d.high.dtype, d.eigenvectors.dtype, d.logits.dtype} == {torch.float64}
    assert d.locality_radius is not None
    assert bool((d.locality_radius > 0).all())


def test_float32_from_a_float64_network(cnn: Networks) -> None:
    network = cnn((1, 9, 7), 5).double()
    d = decompose(network, _image(torch.float64), precision="float32")
    assert d.high.dtype == torch.float32
    torch.testing.assert_close(d.eigenvalues, decompose(network, _image(torch.float64)).eigenvalues, rtol=1e-4, atol=0)


class _Mean(nn.Module):
    """logits = W mean(x): each voxel's gradient is W / voxels."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.last = nn.Linear(1, 3)
        self.last.weight.data = torch.linspace(-1, 1, 3)[:, None] * gain
        self.last.bias.data.zero_()
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(x.flatten(2).mean(2))
        return logits


@pytest.mark.parametrize(("gain", "size"), [(0.25, 1024), (2.0**11, 4)], ids=["underflow", "overflow"])
def test_float16_gradients_neither_underflow_nor_overflow(gain: float, size: int) -> None:
    """A unit cotangent's gradients of 1e-7 are lost in float16; with a factor that saves those, gradients of 100 overflow."""
    x = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(3)) / gain
    truth = decompose(_Mean(gain), x, energy=1.0)
    d = decompose(_Mean(gain).half(), x.half(), head="categorical", energy=1.0)
    torch.testing.assert_close(d.eigenvalues[0, 0], truth.eigenvalues[0, 0], rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("precision", "dtypes", "coarsest"),
    [
        (None, (torch.float64, torch.float32), torch.float32),
        (None, (torch.float64,), torch.float64),
        ("float64", (torch.float64,), torch.float64),
        ("bfloat16", (torch.float32,), torch.bfloat16),
        ("float16", (torch.float64, torch.float32), torch.float16),
        ("float16", (torch.bfloat16,), torch.bfloat16),
    ],
)
def test_coarsest_dtype_of_the_passes_decides_their_eps(
    precision: str | None, dtypes: tuple[torch.dtype, ...], coarsest: torch.dtype
) -> None:
    assert coarsest_eps(precision, torch.device("cpu"), *dtypes) == torch.finfo(coarsest).eps
    with torch.autocast("cpu", torch.bfloat16):
        assert coarsest_eps(None, torch.device("cpu"), *dtypes) == torch.finfo(torch.bfloat16).eps
