"""A decomposition is data: it moves, saves and loads without its network, and no file of another kind is taken for one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DenseNet121
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core_cases import Case
from monai_ifim.core import (
    BernoulliHead,
    Decomposition,
    GaussianHead,
    HeadError,
    IFIMError,
    Metric,
    NetworkError,
    decompose,
    locality_radius,
)
from monai_ifim.core.decomposition import ANSWERS

Networks = Callable[..., nn.Sequential]


class Doubled(Metric):
    """Twice the change."""

    unit = "half a unit"
    symmetric = True

    def apply(self, images: Tensor) -> Tensor:
        return 2 * images

    def describe(self) -> dict[str, Any]:
        return {"kind": "doubled"}


def _tensors(d: Decomposition) -> dict[str, Tensor]:
    named = {field.name: getattr(d, field.name) for field in fields(d)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _assert_equal(found: Decomposition, expected: Decomposition) -> None:
    assert found.record == expected.record
    assert set(_tensors(found)) == set(_tensors(expected))
    for name, tensor in _tensors(found).items():
        assert tensor.dtype == getattr(expected, name).dtype, name
        assert torch.equal(tensor, getattr(expected, name)), name


@pytest.fixture
def d(cnn: Networks, image: Tensor) -> Decomposition:
    """Three images of ranks 3, 3 and fewer, so that there is padding."""
    x = image.clone()
    x[1] *= 20
    return decompose(cnn((1, 7, 5), 4).double(), x, energy=0.9, locality=True)


@pytest.fixture
def file(d: Decomposition, tmp_path: Path) -> Path:
    d.save(tmp_path / "d.safetensors")
    return tmp_path / "d.safetensors"


def test_result_of_a_large_network_is_small_when_pickled() -> None:
    network = DenseNet121(spatial_dims=2, in_channels=1, out_channels=3).eval()
    found = decompose(network, torch.rand(1, 1, 64, 64), locality=True)
    content = pickle.dumps(found)
    assert len(content) < 2**20
    _assert_equal(pickle.loads(content), found)  # noqa: S301 (made above)


def test_fields_are_tensors_and_plain_data(d: Decomposition) -> None:
    estimated = {"sensitivity_error"}  # None: this is none
    assert set(_tensors(d)) == {field.name for field in fields(d)} - {"record", "coordinates", *estimated, *ANSWERS}
    assert json.loads(json.dumps(d.record)) == d.record


def test_what_is_saved_is_what_is_loaded(case: Case, tmp_path: Path) -> None:
    case.leading.save(tmp_path / "d.safetensors")
    found = Decomposition.load(tmp_path / "d.safetensors")
    _assert_equal(found, case.leading)
    assert found.eigenimages is found.eigenvectors
    assert found.locality_radius is None
    assert repr(found) == repr(case.leading)
    assert [path.name for path in tmp_path.iterdir()] == ["d.safetensors"]


def test_padding_radius_and_eigenimages_are_saved(d: Decomposition, cnn: Networks, image: Tensor, tmp_path: Path) -> None:
    assert len(set(d.rank.tolist())) > 1
    doubled = decompose(cnn((1, 7, 5), 4).double(), image, metric=Doubled())
    for number, made in enumerate((d, doubled, decompose(cnn((1, 7, 5), 4), image.float(), precision="bfloat16"))):
        path = tmp_path / f"{number}.safetensors"
        made.save(str(path))
        _assert_equal(Decomposition.load(str(path)), made)
    assert torch.equal(doubled.eigenimages, 2 * doubled.eigenvectors)


def test_a_flat_network_without_components_is_saved(image: Tensor, tmp_path: Path) -> None:
    flat = decompose(lambda x: torch.arange(4.0).double().expand(x.shape[0], 4), image, locality=True)
    flat.save(tmp_path / "d.safetensors")
    _assert_equal(Decomposition.load(tmp_path / "d.safetensors"), flat)


def test_saving_twice_replaces_the_file_and_loaded_tensors_outlive_it(d: Decomposition, file: Path) -> None:
    found = Decomposition.load(file)
    replace(d, high=torch.zeros_like(d.high)).save(file)
    assert torch.equal(found.high, d.high)
    file.unlink()
    _assert_equal(found, d)


def test_image_can_be_split_after_loading(d: Decomposition, file: Path) -> None:
    other = torch.randn(d.image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for found, expected in zip(Decomposition.load(file).project(other), d.project(other), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("move", [Decomposition.cpu, lambda d: d.to("cpu"), lambda d: d.to(torch.device("cpu"))])
def test_moving_to_the_cpu_changes_nothing(d: Decomposition, move: Callable[[Decomposition], Decomposition]) -> None:
    _assert_equal(move(d), d)


def test_all_tensors_move_and_the_eigenimages_stay_the_eigenvectors(d: Decomposition) -> None:
    moved = d.to("meta")  # stands for any other device
    assert {tensor.device.type for tensor in _tensors(moved).values()} == {"meta"}
    assert moved.eigenimages is moved.eigenvectors
    assert moved.record == d.record


def test_radius_later_is_the_radius_asked_for_at_once(d: Decomposition, cnn: Networks, file: Path) -> None:
    assert d.locality_radius is not None
    later = locality_radius(cnn((1, 7, 5), 4).double(), Decomposition.load(file))
    torch.testing.assert_close(later, d.locality_radius, rtol=1e-6, atol=0)


def test_head_parameters_for_the_radius_come_from_the_record(cnn: Networks, image: Tensor) -> None:
    network, head = cnn((1, 7, 5), 3).double(), GaussianHead(0.01)
    asked = decompose(network, image, head=head, locality=True)
    assert asked.locality_radius is not None
    torch.testing.assert_close(locality_radius(network, replace(asked, locality_radius=None)), asked.locality_radius)


def test_output_key_for_the_radius_comes_from_the_record(cnn: Networks, image: Tensor) -> None:
    network = cnn((1, 7, 5), 3).double()
    found = decompose(lambda x: {"other": x, "logits": network(x)}, image, output_key="logits", locality=True)
    later = locality_radius(lambda x: {"other": x, "logits": network(x)}, found)
    torch.testing.assert_close(later, found.locality_radius)


def test_radius_of_another_network_is_refused(d: Decomposition, cnn: Networks) -> None:
    with pytest.raises(NetworkError, match="pass the network"):
        locality_radius(cnn((1, 7, 5), 4, seed=9).double(), d)
    with pytest.raises(NetworkError, match="pass the network"):
        locality_radius(cnn((1, 7, 5), 3).double(), d)


def test_radius_with_another_head_is_refused(d: Decomposition, cnn: Networks, image: Tensor) -> None:
    network = cnn((1, 7, 5), 4).double()
    for head in (BernoulliHead(), "categorical"):
        with pytest.raises(HeadError, match="leave head= out"):
            locality_radius(network, d, head=head)  # type: ignore[arg-type]
    regression = decompose(network, image, head=GaussianHead(2.0), locality=True)
    torch.testing.assert_close(locality_radius(network, regression, head=GaussianHead(2.0)), regression.locality_radius)
    with pytest.raises(HeadError, match="leave head= out"):
        locality_radius(network, regression, head=GaussianHead(1.0))


def test_record_consists_of_plain_types_which_torch_loads_safely(d: Decomposition, tmp_path: Path) -> None:
    torch.save(d.record, tmp_path / "record.pt")
    assert torch.load(tmp_path / "record.pt", weights_only=True) == d.record


def test_saved_file_has_the_permissions_of_any_new_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_missing_file_and_folder_are_refused(d: Decomposition, tmp_path: Path) -> None:
    with pytest.raises(IFIMError, match="give the path"):
        Decomposition.load(tmp_path / "missing.safetensors")
    with pytest.raises(IFIMError, match="give the path"):
        Decomposition.load(tmp_path)
    with pytest.raises(IFIMError, match="a folder that exists"):
        d.save(tmp_path / "missing" / "d.safetensors")
    with pytest.raises(IFIMError, match="a folder that exists"):
        d.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file_is_refused(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(IFIMError, match="save the decomposition again"):
        Decomposition.load(file)


def test_files_of_other_content_are_refused(file: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"weight": torch.ones(3)}, weights)
    with pytest.raises(IFIMError, match="other content"):
        Decomposition.load(weights)
    with weights.open("wb") as pickled:
        pickle.dump({"weight": [1, 2, 3]}, pickled)
    with pytest.raises(IFIMError, match="not a complete safetensors file"):
        Decomposition.load(weights)


def _changed(file: Path, metadata: dict[str, str], tensors: dict[str, Tensor | None]) -> None:
    """Rewrite a file with other metadata and tensors; None leaves a tensor out."""
    with safe_open(file, framework="pt") as opened:
        known = opened.metadata()
    content = load_file(file) | tensors
    kept = {name: values.clone() for name, values in content.items() if values is not None}
    save_file(kept, file, {name: text for name, text in (known | metadata).items() if text})


@pytest.mark.parametrize(
    ("metadata", "tensors", "message"),
    [
        ({"schema": "1"}, {}, "the version that wrote it"),
        ({"schema": ""}, {}, "the version that wrote it"),
        ({"kind": "weights"}, {}, "other content"),
        ({"record": "{"}, {}, "record .* damaged"),
        ({"record": "[1]"}, {}, "record .* damaged"),
        ({"record": ""}, {}, "record .* damaged"),
        ({}, {"high": None}, "lacks tensors .*high"),
        ({}, {"image": None}, "lacks tensors .*image"),
        ({}, {"further": torch.ones(3)}, "further"),
        ({}, {"low": torch.ones(3, 1, 7, 4)}, "shapes .*low"),
        ({}, {"sensitivity_error": torch.ones(3, 1, 7, 4)}, "shapes .*sensitivity_error"),
        ({}, {"converged": torch.ones(2, dtype=torch.bool)}, "shapes .*converged"),
        ({}, {"eigenvectors": torch.ones(3, 1, 1, 7, 5)}, "shapes .*eigenvectors"),
        ({}, {"rank": torch.ones(2, dtype=torch.int64)}, "shapes .*rank"),
        ({}, {"logits": torch.ones(2, 4)}, "shapes"),
    ],
)
def test_changed_file_is_refused_with_the_cure(
    file: Path, metadata: dict[str, str], tensors: dict[str, Tensor | None], message: str
) -> None:
    _changed(file, {}, {})
    Decomposition.load(file)
    _changed(file, metadata, tensors)
    with pytest.raises(IFIMError, match=message):
        Decomposition.load(file)


def test_loading_executes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("something was unpickled, compiled or executed")

    for owner, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr("builtins.eval", refuse)
    assert Decomposition.load(file).rank.numel() == 3


def test_record_that_is_no_plain_data_is_refused(d: Decomposition, tmp_path: Path) -> None:
    with pytest.raises(IFIMError, match="plain data"):
        replace(d, record=d.record | {"metric": object()}).save(tmp_path / "d.safetensors")
    assert list(tmp_path.iterdir()) == []
