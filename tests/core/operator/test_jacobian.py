"""Working in blocks and chunks bounds the memory and changes nothing; half precision keeps its digits."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import decompose
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.memory.row_storage import HeldRow
from monai_ifim.core.operator.rows import FactorRows

Networks = Callable[..., nn.Sequential]


def _rows() -> FactorRows:
    generator = torch.Generator().manual_seed(6)
    values = torch.randn(2, 3, 11, generator=generator)
    scales = 10.0 ** -torch.tensor([[0, 5, 20], [3, 0, 40]], dtype=torch.float64)
    return FactorRows(torch.zeros(2, 1, 11), [HeldRow(row) for row in values.unbind(1)], list(scales.unbind(1)))


@pytest.mark.parametrize("elements", [1, 20, 36, 10_000])
def test_block_size_does_not_matter(elements: int) -> None:
    rows = replace(_rows(), block_elements=elements)
    wide = torch.stack([row.window(0, 11) for row in rows.rows], dim=1).double()
    weights = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    torch.testing.assert_close(rows.gram(), wide @ wide.mT, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(rows.diagonal(), (rows.scales[..., None] * wide).square().sum(1), rtol=1e-13, atol=0)
    torch.testing.assert_close(rows.combine(weights), (weights @ wide).float())


@pytest.mark.parametrize("chunk", [1, 2, 3, 64])
@pytest.mark.parametrize("head", ["categorical", "bernoulli", "gaussian"])
def test_chunk_of_cotangents_does_not_matter(
    cnn: Networks, image: Tensor, monkeypatch: pytest.MonkeyPatch, chunk: int, head: str
) -> None:
    network = cnn((1, 7, 5), 5).double()
    truth = decompose(network, image, head=head, energy=1.0)
    monkeypatch.setattr(SquareRoot.__init__, "__defaults__", (None, None, chunk, None))
    found = decompose(network, image, head=head, energy=1.0)
    torch.testing.assert_close(found.eigenvectors, truth.eigenvectors, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.sensitivity, truth.sensitivity)


@pytest.mark.parametrize(("dtype", "digits"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
@pytest.mark.parametrize("gap", [0.0, 40.0])
def test_half_precision_keeps_its_digits_however_small_the_probabilities(
    linear: Networks, image: Tensor, dtype: torch.dtype, digits: float, gap: float
) -> None:
    network = linear((1, 7, 5), 4)
    network[-1].bias.data[2] += gap
    half = decompose(copy.deepcopy(network).to(dtype), image.to(dtype), energy=1.0)
    weight = network[-1].weight.detach().to(dtype).double()
    p = half.logits.double().softmax(1)
    spread = weight - weight[half.logits[0].argmax()]  # gradients of z_c - z_m
    mean = p @ spread
    truth = (p @ spread.square().sum(1)) - mean.square().sum(1)  # trace of the covariance of the gradients
    assert half.rank.tolist() == [3, 3, 3]
    torch.testing.assert_close(half.trace, truth, rtol=digits, atol=0)
