"""Weights of a bundle in the safetensors format: read, preferred, refused where they are none."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.weights import read_state
from monai_ifim.io import InputError, identify_bundle

Network = Callable[..., torch.nn.Module]


@pytest.fixture
def bundle(tmp_path: Path, make_bundle: Callable[..., Path], make_network: Network) -> Path:
    """A bundle with models/model.safetensors of half the weights that its models/model.pt has."""
    root = make_bundle(tmp_path / "bundle")
    halves = {name: value / 2 for name, value in make_network().state_dict().items()}
    safetensors.torch.save_file(halves, root / "models" / "model.safetensors")
    return root


@pytest.mark.parametrize("shared", [True, False])
def test_safetensors_are_read_before_other_weights_and_are_the_weights_of_the_identity(
    shared: bool, bundle: Path, make_network: Network
) -> None:
    state = read_state(bundle) if shared else None
    loaded = load_bundle(bundle, state=state)
    for name, value in make_network().state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value / 2), name
    expected = hashlib.sha256((bundle / "models" / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.identity.weights_sha256 == identify_bundle(bundle).weights_sha256 == expected
    (bundle / "models" / "model.pt").unlink()
    assert load_bundle(bundle).identity.weights_sha256 == expected


def test_a_tied_tensor_which_the_file_holds_once_is_both(bundle: Path) -> None:
    network = "torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))"
    tied = f"$(lambda n: (setattr(n[1], 'weight', n[0].weight), n)[1])({network})"
    config = bundle / "configs" / "inference.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"network_def": tied}), encoding="utf-8")
    made = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    made[1].weight = made[0].weight
    safetensors.torch.save_model(made, str(bundle / "models" / "model.safetensors"))
    found = load_bundle(bundle).network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in made.state_dict().items())


class _Harm:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("harm", "w")


@pytest.mark.parametrize("content", ["cut", "empty", "pickle", "checkpoint"])
def test_what_holds_no_tensors_is_refused_and_its_cure_works(
    content: str, bundle: Path, make_network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = bundle / "models" / "model.safetensors"
    spoilt = {
        "cut": weights.read_bytes()[:-9],
        "empty": b"",
        "pickle": pickle.dumps(_Harm()),
        "checkpoint": (bundle / "models" / "model.pt").read_bytes(),
    }
    weights.write_bytes(spoilt[content])
    with pytest.raises(
        InputError, match=r"models/model\.safetensors holds no tensors \(.+\): .*safetensors\.torch\.save_file\.$"
    ):
        load_bundle(bundle)
    assert not (tmp_path / "harm").exists()
    safetensors.torch.save_file(make_network().state_dict(), weights)
    assert load_bundle(bundle).identity.weights_sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()


def test_weights_of_another_network_are_refused_by_the_name_of_their_file(bundle: Path) -> None:
    safetensors.torch.save_file({"other": torch.zeros(3)}, bundle / "models" / "model.safetensors")
    with pytest.raises(InputError, match=r"models/model\.safetensors does not fit network_def"):
        load_bundle(bundle)
