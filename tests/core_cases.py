"""One table of cases (tiny net, head, 2D or 3D, channels, dtype, seed) and the small networks that feed the core tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import Decomposition, GaussianHead, Head, decompose
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.heads.square_root import SquareRoot
from monai_ifim.core.operator.factor import Factor
from monai_ifim.core.operator.jacobian import Jacobian

NetworkFactory = Callable[..., nn.Sequential]


@dataclass(frozen=True)
class Case:
    """A smooth tiny network with its head and a batch of two images; shape: [channel, *spatial], odd and unequal."""

    name: str
    head: str
    shape: tuple[int, ...]
    outputs: int
    dtype: torch.dtype = torch.float64
    final: type[nn.Module] | None = None  # Softmax or Sigmoid after the logits
    sigma: float | tuple[float, ...] = 1.0
    correlated: bool = False
    seed: int = 0

    @property
    def tolerance(self) -> float:
        return 1e-9 if self.dtype == torch.float64 else 2e-4

    @property
    def rank(self) -> int:
        exclusive = self.head == "categorical" or self.final is nn.Softmax
        return self.outputs - 1 if exclusive else self.outputs

    @cached_property
    def logits_network(self) -> nn.Sequential:
        return smooth_cnn(self.shape, self.outputs, seed=self.seed).to(self.dtype)

    @cached_property
    def network(self) -> nn.Sequential:
        if self.final is None:
            return self.logits_network
        last = nn.Softmax(dim=1) if self.final is nn.Softmax else nn.Sigmoid()
        return nn.Sequential(*self.logits_network, last).eval()

    @cached_property
    def image(self) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 100)
        return torch.randn(2, *self.shape, generator=generator, dtype=torch.float64).to(self.dtype)

    @cached_property
    def covariance(self) -> Tensor:
        """Of the output noise of a Gaussian head."""
        if not self.correlated:
            return torch.diag(torch.as_tensor(self.sigma, dtype=torch.float64).square().expand(self.outputs))
        root = torch.randn(self.outputs, self.outputs, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        return root @ root.T + 0.5 * torch.eye(self.outputs, dtype=torch.float64)

    @cached_property
    def likelihood(self) -> str | Head:
        if self.correlated:
            return GaussianHead(covariance=self.covariance)
        if self.head == "gaussian" and self.sigma != 1.0:
            return GaussianHead(self.sigma if isinstance(self.sigma, float) else torch.tensor(self.sigma))
        return self.head

    @property
    def reference_head(self) -> str:
        """The head on logits whose dense matrix is the truth."""
        if self.final is None:
            return self.head
        return "categorical" if self.final is nn.Softmax else "bernoulli"

    @cached_property
    def fisher(self) -> list[Tensor]:
        """Dense F of each image, float64."""
        covariance = self.covariance if self.head == "gaussian" else None
        return [dense_fisher(self.logits_network, x[None], self.reference_head, covariance) for x in self.image]

    @cached_property
    def whole(self) -> Decomposition:
        return decompose(self.network, self.image, head=self.likelihood, energy=1.0)

    @cached_property
    def leading(self) -> Decomposition:
        return decompose(self.network, self.image, head=self.likelihood, energy=0.7)


SINGLE = torch.float32
CASES = [
    Case("categorical-2d", "categorical", (1, 7, 5), 5),
    Case("categorical-2d-3channels-float32", "categorical", (3, 7, 5), 6, SINGLE, seed=1),
    Case("categorical-3d", "categorical", (1, 5, 3, 4), 4, seed=2),
    Case("categorical-3d-3channels-float32", "categorical", (3, 5, 3, 4), 5, SINGLE, seed=3),
    Case("categorical-3d-two-classes", "categorical", (1, 3, 5, 4), 2, seed=4),
    Case("bernoulli-2d-3channels", "bernoulli", (3, 5, 7), 4, seed=5),
    Case("bernoulli-3d-float32", "bernoulli", (1, 3, 4, 5), 5, SINGLE, seed=6),
    Case("one-logit-2d", "bernoulli", (1, 9, 5), 1, seed=7),
    Case("one-logit-3d-3channels-float32", "bernoulli", (3, 3, 5, 2), 1, SINGLE, seed=8),
    Case("gaussian-unit-2d-float32", "gaussian", (1, 7, 4), 3, SINGLE, seed=9),
    Case("gaussian-sigma-3d", "gaussian", (1, 4, 5, 3), 4, sigma=0.3, seed=10),
    Case("gaussian-sigmas-2d-3channels-float32", "gaussian", (3, 5, 6), 3, SINGLE, sigma=(0.2, 1.0, 3.0), seed=11),
    Case("gaussian-covariance-3d", "gaussian", (2, 5, 3, 4), 4, correlated=True, seed=12),
    Case("softmax-2d-3channels", "probabilities", (3, 5, 7), 5, final=nn.Softmax, seed=13),
    Case("softmax-3d-float32", "probabilities", (1, 5, 3, 4), 4, SINGLE, final=nn.Softmax, seed=14),
    Case("sigmoid-2d", "probabilities", (1, 7, 5), 3, final=nn.Sigmoid, seed=15),
    Case("sigmoid-3d-float32", "probabilities", (1, 4, 5, 3), 4, SINGLE, final=nn.Sigmoid, seed=16),
    Case("one-sigmoid-2d", "probabilities", (1, 5, 7), 1, final=nn.Sigmoid, seed=17),
]


def smooth_cnn(shape: tuple[int, ...], outputs: int, *, seed: int = 0, gain: float = 3.0) -> nn.Sequential:
    """Two smooth convolutions and a linear layer, in eval mode; shape: [channel, *spatial]."""
    convolution = nn.Conv2d if len(shape) == 3 else nn.Conv3d
    features = 4 * math.prod((size + 1) // 2 for size in shape[1:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first: nn.Module = convolution(shape[0], 3, 3, padding=1)
        second: nn.Module = convolution(3, 4, 3, stride=2, padding=1)
        last = nn.Linear(features, outputs)
    last.weight.data *= gain
    return nn.Sequential(first, nn.Tanh(), second, nn.Softplus(), nn.Flatten(), last).eval()


def linear_network(shape: tuple[int, ...], outputs: int, *, seed: int = 0, gain: float = 2.0) -> nn.Sequential:
    """logits = W x + b with normal weights, in eval mode; shape: [channel, *spatial]."""
    size = math.prod(shape)
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(size, outputs)
    layer.weight.data = torch.randn(outputs, size, generator=generator) * gain / size**0.5
    layer.bias.data = torch.randn(outputs, generator=generator)
    return nn.Sequential(nn.Flatten(), layer).eval()


def matrix_factor(matrix: Tensor) -> Factor:
    """The factor A = J^T S of matrices A [B, D, r]: J = A^T and S = I, for images [B, 1, 1, D]."""
    batch, size, columns = matrix.shape
    jacobian = Jacobian(
        lambda x: torch.einsum("bdc,bd->bc", matrix, x.flatten(1)), torch.zeros(batch, 1, 1, size, dtype=torch.float64)
    )
    ones, identity = torch.ones(batch, columns, dtype=torch.float64), torch.eye(columns, dtype=torch.float64)
    return Factor(jacobian, SquareRoot(ones, ones, lambda start, stop: identity[start:stop].expand(batch, -1, -1)))


@pytest.fixture(scope="session", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """Every row of the table in turn."""
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="session", params=[c for c in CASES if c.head != "gaussian"], ids=lambda case: case.name)
def classifier_case(request: pytest.FixtureRequest) -> Case:
    """The rows with a prediction that can be more or less probable."""
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="session", params=[c for c in CASES if c.head == "gaussian"], ids=lambda case: case.name)
def regression_case(request: pytest.FixtureRequest) -> Case:
    """The rows whose mean is their mode."""
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="session", params=[c for c in CASES if c.final is not None], ids=lambda case: case.name)
def probability_case(request: pytest.FixtureRequest) -> Case:
    """The rows whose network ends in a softmax or sigmoid."""
    chosen: Case = request.param
    return chosen


@pytest.fixture(scope="session")
def cnn() -> NetworkFactory:
    return smooth_cnn


@pytest.fixture(scope="session")
def linear() -> NetworkFactory:
    return linear_network


@pytest.fixture
def image() -> Tensor:
    """A batch of three [1, 7, 5] images, float64."""
    return torch.randn(3, 1, 7, 5, generator=torch.Generator().manual_seed(42), dtype=torch.float64)
