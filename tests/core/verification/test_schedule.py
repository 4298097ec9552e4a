"""Which images are verified, and what the records of the others say."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import Decomposition, GradientWarning, NetworkError, decompose
from monai_ifim.core.decompose import decompose_with
from monai_ifim.core.settings import Settings
from monai_ifim.core.verification.schedule import VerificationSchedule

IMAGE = torch.rand(1, 1, 7, 6, generator=torch.Generator().manual_seed(0))


def _network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(42, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def _by(d: Decomposition) -> list[str]:
    return [image["by"] for image in d.record["verification"]["images"]]


def test_the_first_image_is_verified_and_every_twentieth_after_it() -> None:
    network = _network()
    by = [name for _ in range(42) for name in _by(decompose(network, IMAGE))]
    assert [number for number, name in enumerate(by) if name == "itself"] == [0, 20, 40]
    assert by[1:20] == ["image 1"] * 19
    assert by[21:40] == ["image 21"] * 19
    assert by[41] == "image 41"


def test_images_of_a_batch_count_one_by_one() -> None:
    network = _network()
    first, second = (_by(decompose(network, IMAGE.repeat(13, 1, 1, 1))) for _ in range(2))
    assert first == ["itself"] + ["image 1"] * 12
    assert second == ["image 1"] * 7 + ["itself"] + ["image 21"] * 5


@pytest.mark.parametrize("budget", [None, "64MiB"])
def test_a_batch_in_parts_is_verified_as_one(budget: Any) -> None:
    d = decompose(_network(), torch.rand(5, 1, 7, 6), memory_budget=budget, verify="always")
    assert _by(d) == ["itself"] * 5
    deviations = [image["deviation"] for image in d.record["verification"]["images"]]
    assert d.record["verification"]["deviation"] == max(deviations)
    assert len(set(deviations)) == 5


def test_another_shape_setting_or_network_has_a_first_image_of_its_own() -> None:
    network = _network()
    decompose(network, IMAGE)
    assert _by(decompose(network, IMAGE)) == ["image 1"]
    assert _by(decompose(network, IMAGE.transpose(2, 3))) == ["itself"]
    assert _by(decompose(network, IMAGE, head="bernoulli")) == ["itself"]
    assert _by(decompose(network, IMAGE, precision="float64")) == ["itself"]
    assert _by(decompose(network, IMAGE, locality=True)) == ["image 1"]
    assert _by(decompose(_network(), IMAGE)) == ["itself"]


def test_hooks_left_on_after_the_first_image_are_noticed() -> None:
    network = _network()
    decompose(network, IMAGE)
    network[2].register_full_backward_hook(lambda module, before, after: (3 * before[0],))  # type: ignore[index]
    with pytest.warns(GradientWarning, match="backward hooks on 2"):
        decompose(network, IMAGE)


def test_never_is_recorded_and_takes_no_pass() -> None:
    network, calls = _network(), [0]
    network.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    d = decompose(network, IMAGE, verify="never")
    assert calls == [1]
    assert d.record["verification"]["outcome"] == "never"
    assert d.record["settings"]["verify"] == "never"


def test_records_name_the_case_that_was_verified() -> None:
    network = _network()
    decompose_with(Settings(), network, IMAGE, names=["left lung"])
    d = decompose_with(Settings(), network, IMAGE.repeat(2, 1, 1, 1), names=["right lung", "both"])
    assert _by(d) == ["left lung"] * 2


def test_a_disagreement_is_repeated_in_the_records_after_it_and_warned_of_once() -> None:
    class Cut(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] + 2 * x.flatten(1)[:, 3:6].detach()

    network = Cut().eval()
    with pytest.warns(GradientWarning):
        decompose(network, IMAGE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d = decompose(network, IMAGE)
    assert (d.record["verification"]["outcome"], d.record["verification"]["by"]) == ("disagrees", "image 1")
    assert "Look for gradients cut by" in d.record["verification"]["reason"]


def test_an_image_that_was_refused_does_not_stand_for_others() -> None:
    class Chance(nn.Module):
        steady = False

        def forward(self, x: Tensor) -> Tensor:
            noise = 0.0 if self.steady else torch.rand(1)
            return x.flatten(1)[:, :3] + noise * x.flatten(1)[:, 3:6]

    network = Chance().eval()
    for _ in range(2):
        with pytest.raises(NetworkError, match="random"):
            decompose(network, IMAGE)
    network.steady = True  # the cure
    assert _by(decompose(network, IMAGE)) == ["itself"]


def test_networks_are_not_kept_alive() -> None:
    schedule, network = VerificationSchedule(), _network()
    schedule.next_images(network, "kind", 1, "sample")
    assert len(schedule._histories) == 1
    del network
    gc.collect()
    assert len(schedule._histories) == 0


def test_a_callable_without_weak_references_is_verified_each_time() -> None:
    schedule, values = VerificationSchedule(), {"a": 1}
    assert [schedule.next_images(values.get, "kind", 1, "sample")[0] for _ in range(2)] == [[0], [0]]


def test_a_path_that_an_argument_chooses_has_a_first_image_of_its_own() -> None:
    class Paths(nn.Module):
        def forward(self, x: Tensor, scale: float, path: str = "whole") -> Tensor:
            logits = x.flatten(1)[:, :3] * scale
            return logits if path == "whole" else logits + 2 * x.flatten(1)[:, 3:6].detach()

    network = Paths().eval()
    assert _by(decompose(network, IMAGE, network_args=[2.0])) == ["itself"]
    assert _by(decompose(network, IMAGE, network_args=[3.0])) == ["image 1"]
    with pytest.warns(GradientWarning):
        decompose(network, IMAGE, network_args=[2.0], network_kwargs={"path": "cut"})
