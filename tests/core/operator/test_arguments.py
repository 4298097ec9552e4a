"""The one rule for which further arguments of a network belong to the images of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from monai_ifim.core.operator.arguments import for_items, is_per_image


@pytest.mark.parametrize(
    ("value", "batch", "belongs"),
    [
        (torch.zeros(3), 3, True),
        (torch.zeros(3, 2), 3, True),
        (torch.zeros(4, 3), 3, False),
        (torch.zeros(2, 3), 3, False),
        (torch.zeros(1, 3), 3, False),
        (torch.tensor(3.0), 3, False),
        (torch.zeros(1, 5), 1, True),
        ([1.0, 2.0, 3.0], 3, False),
        ("abc", 3, False),
        (None, 3, False),
    ],
)
def test_a_tensor_belongs_to_the_images_where_its_first_axis_is_the_batch(value: Any, batch: int, belongs: bool) -> None:
    assert is_per_image(value, batch) == belongs


def test_items_are_taken_of_what_belongs_to_them_and_all_of_the_rest() -> None:
    each, shared = torch.arange(6.0).reshape(3, 2), torch.arange(4.0)
    assert torch.equal(for_items(each, slice(1, 2), 3), each[1:2])
    assert torch.equal(for_items(each, torch.tensor([2, 2, 0]), 3), each[[2, 2, 0]])
    assert for_items(shared, slice(1, 2), 3) is shared
    assert for_items("sum", slice(1, 2), 3) == "sum"


def test_tensors_in_containers_count_one_by_one() -> None:
    value = {"each": torch.arange(6.0).reshape(3, 2), "shared": [torch.arange(4.0), "sum"]}
    found = for_items(value, slice(1, 2), 3)
    assert torch.equal(found["each"], value["each"][1:2])  # type: ignore[index]
    assert found["shared"][0] is value["shared"][0]
    assert found["shared"][1] == "sum"
