"""Settings as plain data: described, made again, compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import pytest
import torch
from torch import Tensor

from monai_ifim.core import (
    BernoulliHead,
    GaussianHead,
    GaussianLowPass,
    Head,
    HeadError,
    IFIMError,
    NoiseLevel,
    SquareRoot,
    decompose,
)
from monai_ifim.core.coordinates import Family
from monai_ifim.core.decompose import decompose_with
from monai_ifim.core.heads.voxelwise import VoxelwiseHead
from monai_ifim.core.operator.metric import Metric
from monai_ifim.core.settings import Settings, SettingsShortcuts, selection
from monai_ifim.options import DECOMPOSITION, Option


class Shift(Family):
    """A family with a parameter."""

    kind = "shift"
    names = ("shift",)
    units = ("mm",)

    def tangents(self, image: Tensor, start: int, stop: int) -> Tensor:
        return torch.ones_like(image)[None]

    def moved(self, image: Tensor, theta: Sequence[float]) -> Tensor:
        return image + theta[0]

    def describe(self) -> dict[str, Any]:
        return {"kind": "shift", "direction": "L"}


OTHERS: dict[str, Any] = {  # another value of each field than the default
    "head": GaussianHead(2.0),
    "output_key": "logits",
    "energy": 0.5,
    "rank": 2,
    "method": "adaptive",
    "tolerance": 1e-2,
    "probes": 5,
    "memory_budget": "1GiB",
    "metric": GaussianLowPass(1.5),
    "precision": "float64",
    "seed": 7,
    "locality": True,
    "verify": "always",
    "volume_tolerance": "0.5 ml",
    "answer": "tumour",
    "answer_mask": torch.ones(4, 3),
    "coordinates": (Shift(),),
}


class Ruled(Head):
    """A head of one's own with a parameter that is no plain data."""

    name = "ruled"

    def __init__(self, rule: Any = None) -> None:
        self.rule = rule

    def square_root(self, output: Tensor) -> SquareRoot:
        return BernoulliHead().square_root(output)

    def probabilities(self, output: Tensor) -> Tensor:
        return output

    def divergence(self, output: Tensor, moved: Tensor) -> Tensor:
        return output[:, 0]


def network(x: Tensor) -> Tensor:
    return x.flatten(1)[:, :3] * torch.tensor([1.0, 2.0, 3.0])


def test_a_field_that_never_decides_may_be_missing_from_a_description() -> None:
    description = {name: value for name, value in Settings(rank=2).describe().items() if name != "verify"}
    assert Settings.from_description(description).verify == "sample"
    assert Settings(rank=2, verify="never").gives_same_result(description)
    del description["energy"]
    with pytest.raises(IFIMError, match="'energy' is missing"):
        Settings.from_description(description)
    assert Settings(rank=2).differences(description) == ("energy",)


def through_json(settings: Settings) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(json.dumps(settings.describe(), allow_nan=False))
    return description


def test_every_field_has_an_option_a_keyword_and_another_value_here() -> None:
    assert set(Settings.options()) == set(DECOMPOSITION) == set(get_type_hints(SettingsShortcuts)) == set(OTHERS)
    for name, option in Settings.options().items():
        assert getattr(Settings(), name) == option.default


@pytest.mark.parametrize("name", OTHERS)
def test_a_field_is_made_again_from_its_description_and_told_apart(name: str) -> None:
    settings = replace(Settings(), **{name: OTHERS[name]})
    description = through_json(settings)
    assert description == settings.describe()
    kept = {name: OTHERS[name]} if name in ("answer_mask", "coordinates") else {}  # their descriptions do not hold them
    again = Settings.from_description(description, **kept)
    assert through_json(again) == description
    assert again.gives_same_result(settings)
    decides = () if name in ("memory_budget", "verify") else (name,)
    assert settings.differences(Settings()) == decides
    assert Settings().differences(settings) == (() if name == "locality" else decides)  # a radius more does no harm


@pytest.mark.parametrize("name", ["seed", "tolerance", "probes"])
def test_an_exact_result_depends_on_neither_seed_nor_tolerance(name: str) -> None:
    settings = replace(Settings(), **{name: OTHERS[name]})
    assert settings.gives_same_result(Settings(), exact=True)
    assert not settings.gives_same_result(Settings())


@pytest.mark.parametrize(
    ("stated", "used"),
    [
        ({}, (0.99, None, 1e-4)),
        ({"head": "volumes"}, (0.99, None, 1e-4)),  # a map, but no columns at every voxel
        ({"head": VoxelwiseHead()}, (0.99, 3, 0.05)),
        ({"head": "voxelwise"}, (0.99, 3, 0.05)),
        ({"head": "voxelwise_bernoulli", "tolerance": 1e-3}, (0.99, 3, 1e-3)),
        ({"head": "voxelwise", "energy": 0.5}, (0.5, None, 0.05)),
        ({"head": "voxelwise", "rank": 7}, (0.99, 7, 0.05)),
        ({"head": "gaussian", "rank": 7, "tolerance": 0.2}, (0.99, 7, 0.2)),
    ],
)
def test_what_is_not_stated_is_the_default_of_the_head(stated: dict[str, Any], used: tuple[Any, ...]) -> None:
    settings = Settings(**stated)
    assert settings.resolved == used
    described = through_json(settings)
    assert (described["energy"], described["rank"], described["tolerance"]) == used
    assert selection(settings) == selection(described) == ({"energy": used[0]} if used[1] is None else {"rank": used[1]})
    again = Settings.from_description(described)
    assert again.resolved == used
    assert again.gives_same_result(settings)
    assert settings.gives_same_result(described)


def test_defaults_follow_a_head_that_is_given_later() -> None:
    assert Settings.of(Settings(seed=3), {"head": "voxelwise"}).resolved.rank == 3
    assert replace(Settings("voxelwise"), head="categorical").resolved == Settings().resolved


def test_descriptions_of_before_the_probes_are_read() -> None:
    before = {name: value for name, value in Settings(rank=2).describe().items() if name != "probes"}
    assert Settings.from_description(before).probes == 2
    assert Settings(rank=2).differences(before) == ("probes",)
    assert Settings(rank=2).gives_same_result(before, exact=True)
    assert Settings().gives_same_result({**before, "rank": None, "energy": 0.99, "tolerance": 1e-4}, exact=True)


@pytest.mark.parametrize("probes", [1, 0, -2, 2.5, True, "8"])
def test_fewer_than_two_probes_are_refused(probes: Any) -> None:
    with pytest.raises(IFIMError, match="from 2 on"):
        Settings(probes=probes)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        (GaussianHead(1.0), GaussianHead(10.0), False),
        (GaussianHead(3.0), GaussianHead(3.0), True),
        (GaussianHead(torch.tensor([1.0, 2.0])), GaussianHead(torch.tensor([1.0, 2.5])), False),
        (GaussianHead(covariance=torch.eye(2)), GaussianHead(covariance=torch.eye(2)), True),
        (GaussianHead(covariance=torch.eye(2)), GaussianHead(covariance=2 * torch.eye(2)), False),
        (BernoulliHead(), GaussianHead(), False),
        (Ruled(1), Ruled(1), True),
        (Ruled(1), Ruled(2), False),
        (Ruled(object()), Ruled(object()), False),  # which cannot be compared
    ],
)
def test_heads_are_compared_with_their_parameters(first: Head, second: Head, same: bool) -> None:
    assert Settings(first).gives_same_result(through_json(Settings(second))) is same


def test_noise_maps_are_compared_by_their_values() -> None:
    level = torch.rand(1, 4, 4) + 0.5
    settings = Settings(metric=level)
    assert settings.gives_same_result(through_json(Settings(metric=NoiseLevel(level.clone()))))
    assert settings.differences(through_json(Settings(metric=level + 0.1))) == ("metric",)


@pytest.mark.parametrize("head", [GaussianHead(2.5), GaussianHead([1.0, 2.0, 3.0]), GaussianHead(covariance=2 * torch.eye(3))])  # type: ignore[arg-type]
def test_a_head_made_again_gives_the_same_numbers(head: GaussianHead) -> None:
    again = Settings.from_description(through_json(Settings(head)))
    x = torch.rand(1, 1, 5, 4)
    first, second = (decompose_with(settings, network, x) for settings in (Settings(head), again))
    assert torch.equal(first.eigenvalues, second.eigenvalues)
    assert not torch.allclose(first.eigenvalues, decompose(network, x, head="gaussian").eigenvalues)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"force": 9}, "unknown setting 'force': the settings are head, output_key"),
        ({"energy": 2.0}, "energy"),
        ({"head": {"name": "ruled", "class": "here:Ruled"}}, "'ruled' is a custom class.*pass the Head itself"),
        ({"head": {"name": "gaussian", "class": "here:Mine", "sigma": 1.0}}, "a custom class"),
        ({"head": {"name": "gaussian", "width": 1.0}}, r"cannot be made from the parameters \['width'\]"),
        ({"head": 7}, "give one of 'auto'"),
        ({"metric": {"kind": "noise level", "sigma": "map"}}, "noise map.*give the map again"),
        ({"metric": {"kind": "Own"}}, "'Own' is a custom class.*pass it as metric="),
        ({"metric": {"kind": "noise level"}}, "lacks 'sigma'"),
        ({"locality": "yes"}, "locality='yes': give True or False"),
        ({"output_key": 1.5}, "output_key=1.5"),
        ({"volume_tolerance": "5 mm"}, "such as '5 %'"),
        ({"volume_tolerance": 5}, "such as '5 %'"),
        ({"answer": -1}, "answer=-1: give the name of a class or label, or its number"),
        ({"answer": " "}, "give the name"),
        ({"answer_mask": {"shape": [2], "voxels": 1, "sha256": "0"}}, "a hash alone: give the mask again"),
        ({"answer_mask": "lesion.nii"}, "give a tensor"),
        ({"coordinates": [{"kind": "shift"}]}, r"coordinates \(shift\) does not hold what they compute: give the families"),
        ({"coordinates": "placement"}, "give families"),
        ({"answer_mask": torch.tensor([1.0, float("nan")])}, "NaN"),
    ],
)
def test_a_description_that_cannot_be_is_refused_with_the_cure(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(IFIMError, match=reason):
        Settings.from_description(Settings().describe() | change)


def test_a_description_without_a_field_is_refused_and_differs() -> None:
    lacking = {name: value for name, value in Settings().describe().items() if name != "seed"}
    with pytest.raises(IFIMError, match="'seed' is missing"):
        Settings.from_description(lacking)
    assert Settings().differences(lacking) == ("seed",)
    assert Settings().differences(Settings().describe() | {"force": 9}) == ("force",)
    assert Settings.from_description(lacking, seed=4).seed == 4


def test_a_description_of_before_volumes_had_a_tolerance_stands_for_the_whole_answer() -> None:
    earlier = {name: value for name, value in through_json(Settings(rank=2)).items() if not name.startswith(("answer", "volume"))}
    assert Settings.from_description(earlier).describe() == Settings(rank=2).describe()
    assert Settings(rank=2).gives_same_result(earlier)
    assert Settings(rank=2, answer=1, volume_tolerance="1 ml").differences(earlier) == ("volume_tolerance", "answer")


def test_shortcuts_take_the_place_of_fields_and_unknown_ones_are_listed() -> None:
    settings = Settings.of(Settings("bernoulli", rank=3), {"rank": 1})
    assert (settings.head, settings.rank) == ("bernoulli", 1)
    with pytest.raises(IFIMError, match="unknown setting 'enegry': the settings are head, output_key, energy"):
        Settings.of(None, {"enegry": 0.5})
    with pytest.raises(IFIMError, match="settings='categorical': give Settings"):
        Settings.of("categorical")  # type: ignore[arg-type]


def test_a_field_of_a_subclass_is_described_made_again_and_compared() -> None:
    """As a new option is: declared once, it is in record, resume and `--from`."""
    from dataclasses import field

    @dataclass(frozen=True, kw_only=True)
    class Wider(Settings):
        force: float = field(default=1.0, metadata={"option": Option(1.0, "How hard.", float)})

    settings = Wider(force=3.0)
    assert decompose_with(settings, network, torch.rand(1, 1, 5, 4)).record["settings"]["force"] == 3.0
    again = Wider.from_description(through_json(settings))
    assert (again.force, again.describe()) == (3.0, settings.describe())
    assert settings.differences(through_json(Wider())) == ("force",)
    assert settings.differences(Settings()) == ("force",)


def test_the_record_states_the_settings_as_given() -> None:
    level = torch.rand(1, 5, 4) + 0.5
    settings = Settings("gaussian", metric=level, rank=1)
    record = decompose_with(settings, network, torch.rand(2, 1, 5, 4)).record
    assert record["settings"] == through_json(settings)
    assert selection(record["settings"]) == {"rank": 1}


def test_a_metric_of_one_s_own_is_described_by_itself() -> None:
    class Half(Metric):
        unit = "half"

        def apply(self, images: Tensor) -> Tensor:
            return images / 2

        def describe(self) -> dict[str, Any]:
            return {"kind": "half"}

    assert Settings(metric=Half()).describe()["metric"] == {"kind": "half"}


def test_a_head_that_is_none_is_refused() -> None:
    with pytest.raises(HeadError, match="unknown head 'poisson': choose one of 'auto', 'categorical'"):
        Settings("poisson")
    with pytest.raises(HeadError, match="give one of 'auto'"):
        Settings(3)  # type: ignore[arg-type]
