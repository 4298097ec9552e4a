"""Whatever the network, head and method: a number that is none is refused, and nothing of the caller's is changed."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from monai_ifim.core import GaussianHead, HeadError, IFIMError, ImageError, NetworkError, decompose
from properties.subjects import LOGITS, Subject, selections, subjects

pytestmark = pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.SpectralTieWarning")
BAD = st.sampled_from((float("nan"), float("inf"), -float("inf")))
METHODS = st.sampled_from(("auto", "exact", "adaptive", "matrix_free"))
PLACES = st.integers(0, 2**20)


def _spoiled(values: Tensor, bad: float, place: int) -> Tensor:
    spoiled = values.clone()
    spoiled.view(-1)[place % values.numel()] = bad
    return spoiled


@given(subjects(), BAD, PLACES, METHODS)
def test_an_image_with_a_value_that_is_no_number(subject: Subject, bad: float, place: int, method: Any) -> None:
    with pytest.raises(ImageError, match="NaN or infinite"):
        decompose(subject.network, _spoiled(subject.image, bad, place), head=subject.likelihood, method=method)


@given(subjects(), BAD, PLACES)
def test_an_image_to_project_with_a_value_that_is_no_number(subject: Subject, bad: float, place: int) -> None:
    d = subject.decompose()
    with pytest.raises(ImageError, match="NaN or infinite"):
        d.project(_spoiled(subject.image, bad, place))


@given(st.one_of(st.tuples(subjects(), st.just(float("nan"))), st.tuples(subjects(LOGITS), BAD)), METHODS)
def test_a_network_with_a_weight_that_is_no_number(spoiled: tuple[Subject, float], method: Any) -> None:
    """A softmax makes a number of an infinite logit again."""
    subject, bad = spoiled
    network = copy.deepcopy(subject.network)
    last = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.bias.data[0] = bad
    with pytest.raises((NetworkError, HeadError)):
        decompose(network, subject.image, head=subject.likelihood, method=method)


@given(subjects(("gaussian",)), BAD, PLACES)
def test_noise_that_is_no_number(subject: Subject, bad: float, place: int) -> None:
    with pytest.raises(HeadError):
        GaussianHead(covariance=_spoiled(subject.covariance, bad, place))
    with pytest.raises(HeadError):
        GaussianHead(_spoiled(subject.covariance.diagonal().clone(), bad, place))
    with pytest.raises(IFIMError, match="noise level"):
        subject.decompose(metric=_spoiled(torch.ones(subject.image.shape), bad, place))


@given(subjects(), selections(), METHODS, st.booleans())
def test_nothing_of_the_callers_is_changed(subject: Subject, selection: dict[str, Any], method: Any, frozen: bool) -> None:
    network, image = subject.network.requires_grad_(not frozen), subject.image.requires_grad_(frozen)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pixels, random_state = image.detach().clone(), torch.random.get_rng_state()
    d = decompose(network, image, head=subject.likelihood, method=method, locality=True, **selection)
    assert torch.equal(image, pixels)
    assert image.requires_grad == frozen
    assert image.grad is None
    assert torch.equal(torch.random.get_rng_state(), random_state)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.requires_grad != frozen and parameter.grad is None for parameter in network.parameters())
    tensors = (d.high, d.low, d.eigenvectors, d.eigenvalues, d.sensitivity, d.trace, d.logits, d.probabilities)
    assert all(bool(torch.isfinite(tensor).all()) and not tensor.requires_grad for tensor in tensors)
