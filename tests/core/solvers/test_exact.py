"""The loop over the columns asks the device for no value, so that a GPU is never waited for between two products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from monai_ifim.core.heads.categorical import CategoricalHead
from monai_ifim.core.heads.probabilities import CategoricalProbabilityHead
from monai_ifim.core.memory.row_storage import HeldRow
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.jacobian import Jacobian
from monai_ifim.core.operator.metric import NoiseLevel
from monai_ifim.core.operator.rows import FactorRows
from monai_ifim.core.solvers.exact import whole_factor

Networks = Callable[..., nn.Sequential]
READING = ("item", "tolist", "numpy", "cpu", "nonzero", "equal", "__float__", "__int__", "__bool__", "__index__", "__len__")
OPERATIONS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::allclose", "aten::masked_select")


class Questions(TorchFunctionMode):
    """Calls from Python, and operations below them, for which a program on a GPU would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self._below = _Below(self.asked)

    def __enter__(self) -> Questions:
        super().__enter__()
        self._below.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._below.__exit__(*exception)
        super().__exit__(*exception)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in READING:
            self.asked.append(func.__name__)
        return func(*args, **(kwargs or {}))


class _Below(TorchDispatchMode):
    def __init__(self, asked: list[str]) -> None:
        super().__init__()
        self.asked = asked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indices = args[1] if func is torch.ops.aten.index.Tensor else ()
        if func.name().partition(".")[0] in OPERATIONS or any(i is not None and i.dtype == torch.bool for i in indices):
            self.asked.append(func.name())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "question",
    [
        lambda x: x[0].item(),
        lambda x: float(x[0]),
        lambda x: bool(x[0] > 0),
        lambda x: int(x[0]),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x[x > 0],
        lambda x: torch.equal(x, x),
        lambda x: torch.allclose(x, x),
        lambda x: (x > 0).nonzero(),
    ],
)
def test_every_way_to_wait_is_noticed(question: Callable[[Tensor], object]) -> None:
    with Questions() as questions:
        question(torch.ones(3))
    assert questions.asked


@pytest.mark.parametrize("outputs", [3, 9])
@pytest.mark.parametrize("metric", [None, NoiseLevel(0.5), NoiseLevel(torch.rand(1, 7, 5))], ids=["plain", "noise", "noise map"])
def test_the_loop_waits_for_nothing(cnn: Networks, image: Tensor, outputs: int, metric: Any) -> None:
    network = cnn((1, 7, 5), outputs).double().requires_grad_(False)
    jacobian = Jacobian(network, image)
    factor = Factor(jacobian, CategoricalHead().square_root(jacobian.output), metric and metric.bound(image))
    rows = FactorRows(image)
    with Questions() as questions:
        whole_factor(factor, rows)
    assert questions.asked == []
    assert len(rows.rows) == jacobian.products == outputs - 1


@pytest.mark.parametrize("outputs", [3, 9])
def test_the_loop_of_a_network_that_ends_in_probabilities_waits_for_nothing(cnn: Networks, image: Tensor, outputs: int) -> None:
    network = nn.Sequential(*cnn((1, 7, 5), outputs), nn.Softmax(1)).double().requires_grad_(False).eval()
    jacobian = Jacobian(network, image)
    factor = Factor(jacobian, CategoricalProbabilityHead().square_root(jacobian.output))
    with Questions() as questions:
        whole_factor(factor, FactorRows(image))
    assert questions.asked == []


@pytest.mark.parametrize("count", [1, 4, 11])
def test_all_rows_are_tested_for_finite_numbers_at_once(count: int) -> None:
    rows = FactorRows(torch.zeros(2, 1, 5), [HeldRow(row) for row in torch.rand(count, 2, 5).unbind(0)])
    with Questions() as questions:
        assert rows.finite()
    assert len([name for name in questions.asked if name == "__bool__"]) == 1


@pytest.mark.parametrize("entry", [float("nan"), float("inf"), -float("inf")])
def test_one_entry_that_is_not_finite_is_found(entry: float) -> None:
    values = torch.rand(3, 2, 5)
    values[1, 1, 4] = entry
    assert not FactorRows(torch.zeros(2, 1, 5), [HeldRow(row) for row in values.unbind(0)]).finite()
    large = torch.full((3, 2, 5), 3e38)  # whose sum overflows
    assert FactorRows(torch.zeros(2, 1, 5), [HeldRow(row) for row in large.unbind(0)]).finite()
