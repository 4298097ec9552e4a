"""Outputs at images near one image of a batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import CategoricalHead
from monai_ifim.core.operator.moved_image import MovedImage
from monai_ifim.core.operator.predictor import Predictor


class WithTable(nn.Module):
    """Image and a table of two numbers an image; remembers the sizes of its batches."""

    def __init__(self, most: int = 99) -> None:
        super().__init__()
        self.last, self.most = nn.Linear(12, 3), most
        self.batches: list[int] = []

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        self.batches.append(x.shape[0])
        if x.shape[0] > self.most:
            raise AssertionError("one image at a time")
        return self.last(x.flatten(1)) * table[:, :1] + table[:, 1:]  # type: ignore[no-any-return]


def _moved(network: WithTable, together: int = 3) -> tuple[MovedImage, Tensor, Tensor]:
    torch.manual_seed(0)
    images, tables = torch.rand(4, 1, 3, 4), torch.rand(4, 2)
    predictor = Predictor(network, 4, args=(tables,))
    output = network(images, tables)[2:3].detach()
    network.batches.clear()
    return MovedImage(predictor, 2, images[2:3], output, CategoricalHead(), together), images, tables


@pytest.mark.parametrize(("together", "batches"), [(3, [3]), (2, [2, 1]), (1, [1, 1, 1])])
def test_outputs_are_those_of_the_image_with_its_own_arguments(together: int, batches: list[int]) -> None:
    network = WithTable().eval()
    moved, images, tables = _moved(network, together)
    direction = torch.randn(1, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    found = moved.at(direction, [0.0, 0.5, -2.0])
    assert network.batches == batches
    for outputs, step in zip(found, [0.0, 0.5, -2.0], strict=True):
        expected = network(images[2:3] + step * direction, tables[2:3])[0].double().detach()
        torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-6)
    assert moved.passes == 3
    assert not found.requires_grad


def test_a_network_that_takes_one_image_only_gets_one_from_then_on() -> None:
    network = WithTable(most=1).eval()
    moved, _, _ = _moved(WithTable().eval())
    moved.predictor = Predictor(network, 4, args=moved.predictor.args)
    moved.at(torch.zeros(1, 1, 3, 4), [0.0, 0.0])
    assert (network.batches, moved.together) == ([2, 1, 1], 1)
    moved.at(torch.zeros(1, 1, 3, 4), [0.0, 0.0])
    assert network.batches == [2, 1, 1, 1, 1]


def test_an_error_of_a_single_image_is_not_hidden() -> None:
    moved, _, _ = _moved(WithTable().eval())
    moved.predictor = Predictor(WithTable(most=0).eval(), 4, args=moved.predictor.args)
    with pytest.raises(AssertionError, match="one image at a time"):
        moved.at(torch.zeros(1, 1, 3, 4), [0.0])


def test_passes_in_another_dtype_use_copies_of_the_weights() -> None:
    network = WithTable().eval()
    moved, images, tables = _moved(network)
    wide = moved.in_dtype(torch.float64)
    assert (wide.eps, moved.eps) == (torch.finfo(torch.float64).eps, torch.finfo(torch.float32).eps)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = wide.at(torch.zeros(1, 1, 3, 4), [0.0])
    weights, bias = network.last.weight.double(), network.last.bias.double()
    expected = (images[2].double().flatten() @ weights.T + bias) * tables[2, 0].double() + tables[2, 1].double()
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=0)
    assert network.last.weight.dtype == torch.float32
    assert (wide.passes, moved.passes) == (1, 0)
