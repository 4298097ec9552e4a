"""Each eigenvector points to where the prediction becomes more probable, else its largest entry is positive."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from core_cases import Case
from monai_ifim.core import decompose

Networks = Callable[..., nn.Sequential]


def _log_probability_of_prediction(logits: Tensor, start: Tensor, head: str) -> Tensor:
    """log p(class or label set predicted at the logits `start`) for each row of `logits`."""
    if head == "categorical":
        return logits.log_softmax(1).gather(1, start.argmax(1, keepdim=True))[:, 0]
    return nn.functional.logsigmoid(torch.where(start > 0, logits, -logits)).sum(1)


def _slopes(network: nn.Module, image: Tensor, eigenvectors: Tensor, head: str) -> Tensor:
    """Central differences of that log-probability along every eigenvector in float64, [B, r]."""
    wide, x, step = copy.deepcopy(network).double(), image.double(), 1e-4
    start = wide(x)
    slopes = []
    for u in eigenvectors.double().unbind(1):
        ahead = _log_probability_of_prediction(wide(x + step * u), start, head)
        behind = _log_probability_of_prediction(wide(x - step * u), start, head)
        slopes.append((ahead - behind) / (2 * step))
    return torch.stack(slopes, dim=1).detach()


def test_a_step_along_an_eigenvector_raises_the_probability_of_the_prediction(classifier_case: Case) -> None:
    case = classifier_case
    slopes = _slopes(case.logits_network, case.image, case.whole.eigenvectors, case.reference_head)
    assert slopes.shape == (2, case.rank)
    assert float(slopes.min()) > 0


@pytest.mark.parametrize("gap", [25.0, 75.0])
def test_the_sign_survives_saturation(cnn: Networks, image: Tensor, gap: float) -> None:
    network = cnn((1, 7, 5), 5).double()
    network[-1].bias.data[2] += gap
    d = decompose(network, image, energy=1.0)
    scores = []
    for x, vectors in zip(image, d.eigenvectors, strict=True):
        leaf = x[None].clone().requires_grad_(True)
        z = network(leaf)[0]
        others = z[[0, 1, 3, 4]] - z[2]
        (gradient,) = torch.autograd.grad(-others.logsumexp(0), leaf)  # that of log p_m = -log1p(sum) up to a factor
        scores.append(vectors.flatten(1) @ gradient.flatten())
    assert float(torch.stack(scores).min()) > 0


def test_regression_eigenvectors_have_a_positive_largest_entry(regression_case: Case) -> None:
    flat = regression_case.whole.eigenvectors.flatten(2)
    largest = flat.gather(2, flat.abs().argmax(2, keepdim=True))
    assert bool((largest > 0).all())


def test_direction_that_leaves_the_prediction_alone_has_a_positive_largest_entry() -> None:
    """Three classes, the two others mirror images: swapping their shares leaves log p(predicted) as it is."""

    def network(x: Tensor) -> Tensor:
        a, b = x[:, 0, 0, 0], x[:, 0, 0, 1]
        return torch.stack([torch.full_like(a, 2.0), a - b, a + b], dim=1)

    for direction in (1.0, -1.0):
        d = decompose(lambda x, direction=direction: network(direction * x), torch.zeros(1, 1, 2, 3).double(), energy=1.0)
        by_pixel = d.eigenvectors[0].flatten(1)
        towards, along = by_pixel[by_pixel[:, 0].abs().argmax()], by_pixel[by_pixel[:, 1].abs().argmax()]
        torch.testing.assert_close(towards, torch.tensor([-direction, 0, 0, 0, 0, 0]).double())
        torch.testing.assert_close(along, torch.tensor([0, 1.0, 0, 0, 0, 0]).double())
