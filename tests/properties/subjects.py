"""Random tiny networks with a head and a batch of images: what the properties of the mathematics are tried on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from monai_ifim.core import Decomposition, GaussianHead, Head, decompose
from monai_ifim.core.dense import dense_fisher

LARGEST_IMAGE = 199  # elements
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leaky relu": nn.LeakyReLU,
    "elu": nn.ELU,
}
SMOOTH = ("tanh", "gelu", "softplus", "silu", "sigmoid")
ARCHITECTURES = ("linear", "perceptron", "deep perceptron", "convolution", "strided", "batch norm", "group norm", "pooled")
LOGITS, PROBABILITIES = ("categorical", "bernoulli", "gaussian"), ("softmax", "sigmoid")
HEADS = (*LOGITS, *PROBABILITIES)
NOISES = ("unit", "one sigma", "sigmas", "covariance")
PICTURES = ("normal", "zero", "constant", "ramp", "one voxel")


@dataclass(frozen=True)
class Subject:
    """A network with random weights, in eval mode, its head and its images.

    shape: [channel, *spatial], sizes unequal. gain: factor of the last layer's weights, 0 for an answer that is always the
    same; gap: lead of the first output; ladder: by how much each output falls behind the one before. batch, picture, scale:
    of the images.
    """

    shape: tuple[int, ...]
    outputs: int
    head: str
    architecture: str
    activation: str
    width: int
    gain: float
    gap: float
    ladder: float
    dtype: torch.dtype
    batch: int
    picture: str
    scale: float
    noise: str
    seed: int

    @property
    def size(self) -> int:
        """Elements D of an image."""
        return math.prod(self.shape)

    @property
    def eps(self) -> float:
        return float(torch.finfo(self.dtype).eps)

    @property
    def tolerance(self) -> float:
        """Relative to the largest eigenvalue, between two ways of computing one F in this dtype."""
        return 1e-9 if self.dtype == torch.float64 else 3e-4

    @property
    def exclusive(self) -> bool:
        """Whether the classes exclude each other."""
        return self.head in ("categorical", "softmax")

    @cached_property
    def digits_lost(self) -> float:
        """By how much more than eps F is rounded inside the network: its own softmax or sigmoid keeps probabilities to eps, not
        to eps p (1 - p), and the gradient of a norm over few values is a difference of nearly equal ones."""
        if self.architecture == "group norm" and self.dtype == torch.float32:
            return float("inf")
        if self.head not in PROBABILITIES:
            return 1.0
        p = self.network(self.image).detach().double()
        return float(1 / (p * (1 - p)).min().clamp_min(1e-300))

    @cached_property
    def logits_network(self) -> nn.Sequential:
        """From images to logits, or to means."""
        return _build(self)

    @cached_property
    def network(self) -> nn.Sequential:
        """What is decomposed, with its softmax or sigmoid."""
        return self.finished(self.logits_network)

    @cached_property
    def image(self) -> Tensor:
        """[B, *shape]."""
        return _images(self)

    @cached_property
    def covariance(self) -> Tensor:
        """Of the noise of a regression, float64."""
        generator = torch.Generator().manual_seed(self.seed)
        if self.noise == "covariance":
            root = torch.randn(self.outputs, self.outputs, generator=generator, dtype=torch.float64)
            return root @ root.T + 0.3 * torch.eye(self.outputs, dtype=torch.float64)
        sigmas = 0.2 + 2 * torch.rand(self.outputs, generator=generator, dtype=torch.float64)
        if self.noise == "one sigma":
            sigmas = sigmas[:1].expand(self.outputs)
        return torch.eye(self.outputs, dtype=torch.float64) if self.noise == "unit" else torch.diag(sigmas.square())

    @cached_property
    def likelihood(self) -> str | Head:
        """What `decompose` is told of the head."""
        if self.head != "gaussian":
            return "probabilities" if self.head in PROBABILITIES else self.head
        if self.noise == "covariance":
            return GaussianHead(covariance=self.covariance)
        sigmas = self.covariance.diagonal().sqrt()
        return {"unit": "gaussian", "one sigma": GaussianHead(float(sigmas[0])), "sigmas": GaussianHead(sigmas)}[self.noise]

    @property
    def head_of_logits(self) -> str:
        """The head that the logits have."""
        return {"softmax": "categorical", "sigmoid": "bernoulli"}.get(self.head, self.head)

    def finished(self, logits_network: nn.Module) -> nn.Sequential:
        """A network of logits with the softmax or sigmoid that this head wants."""
        last: dict[str, list[nn.Module]] = {"softmax": [nn.Softmax(dim=1)], "sigmoid": [nn.Sigmoid()]}
        return nn.Sequential(logits_network, *last.get(self.head, [])).eval()

    def decompose(self, **settings: Any) -> Decomposition:
        """The decomposition of the whole batch."""
        return decompose(self.network, self.image, head=self.likelihood, **settings)

    def fisher(self, b: int = 0) -> Tensor:
        """F of image b by the dense reference on the logits, [D, D] float64."""
        covariance = self.covariance if self.head == "gaussian" else None
        return dense_fisher(self.logits_network, self.image[b : b + 1], self.head_of_logits, covariance)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    """[channel, *spatial] of fewer than 200 elements, no two sizes alike."""
    dims = draw(st.sampled_from((2, 3)))
    sizes = draw(st.lists(st.integers(1, 9 if dims == 2 else 6), min_size=dims, max_size=dims, unique=True))
    channels = draw(st.integers(1, min(3, LARGEST_IMAGE // math.prod(sizes))))
    return (channels, *sizes)


@st.composite
def subjects(
    draw: st.DrawFn,
    heads: tuple[str, ...] = HEADS,
    activations: tuple[str, ...] = tuple(ACTIVATIONS),
    outputs: tuple[int, int] = (1, 8),
    gaps: tuple[float, ...] = (0.0, 2.0, 5.0),
    ladders: tuple[float, ...] = (0.0, 0.5),
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
    batches: tuple[int, int] = (1, 3),
    gains: tuple[float, ...] = (1.0, 3.0, 0.3, 0.0),
    scales: tuple[float, ...] = (1.0, 0.01, 4.0),
) -> Subject:
    """Any subject; exclusive classes are two at least."""
    head = draw(st.sampled_from(heads))
    fewest = 2 if head in ("categorical", "softmax") else 1
    return Subject(
        shape=draw(shapes()),
        outputs=draw(st.integers(max(outputs[0], fewest), outputs[1])),
        head=head,
        architecture=draw(st.sampled_from(ARCHITECTURES)),
        activation=draw(st.sampled_from(activations)),
        width=draw(st.integers(1, 5)),
        gain=draw(st.sampled_from(gains)),
        gap=draw(st.sampled_from(gaps)),
        ladder=draw(st.sampled_from(ladders)),
        dtype=draw(st.sampled_from(dtypes)),
        batch=draw(st.integers(*batches)),
        picture=draw(st.sampled_from(PICTURES)),
        scale=draw(st.sampled_from(scales)),
        noise=draw(st.sampled_from(NOISES)) if head == "gaussian" else "unit",
        seed=draw(st.integers(0, 2**31 - 1)),
    )


def selections(most: int = 8) -> st.SearchStrategy[dict[str, float]]:
    """A share of the trace, or a number of components."""
    shares = st.floats(0.01, 1.0).map(lambda energy: {"energy": energy})
    return st.one_of(shares, st.integers(1, most).map(lambda rank: {"rank": rank}))


def _build(subject: Subject) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        trunk = _trunk(subject)
        with torch.no_grad():
            features = nn.Sequential(*trunk).eval()(torch.zeros(1, *subject.shape)).shape[1]
        last = nn.Linear(features, subject.outputs)
        last.weight.data *= subject.gain
        last.bias.data[0] += subject.gap
        last.bias.data -= subject.ladder * torch.arange(subject.outputs)
        return nn.Sequential(*trunk, last).to(subject.dtype).eval()


def _trunk(subject: Subject) -> list[nn.Module]:
    """The layers before the last one, which give features [B, n]."""
    dims, width = len(subject.shape) - 1, subject.width
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
    pool = nn.AdaptiveAvgPool2d if dims == 2 else nn.AdaptiveAvgPool3d
    activation = ACTIVATIONS[subject.activation]
    first = convolution(subject.shape[0], width, 3, padding=1)
    layers: dict[str, Callable[[], list[nn.Module]]] = {
        "linear": lambda: [nn.Flatten()],
        "perceptron": lambda: [nn.Flatten(), nn.Linear(subject.size, width), activation()],
        "deep perceptron": lambda: [
            *(nn.Flatten(), nn.Linear(subject.size, 7), activation()),
            *(nn.Linear(7, width), activation()),
        ],
        "convolution": lambda: [first, activation(), nn.Flatten()],
        "strided": lambda: [first, activation(), convolution(width, 3, 3, 2, padding=1), activation(), nn.Flatten()],
        "batch norm": lambda: [first, _settled(norm(width)), activation(), nn.Flatten()],
        "group norm": lambda: [first, nn.GroupNorm(1, width), activation(), nn.Flatten()],
        "pooled": lambda: [first, activation(), pool(2), nn.Flatten()],
    }
    return layers[subject.architecture]()


def _settled(norm: nn.BatchNorm2d | nn.BatchNorm3d) -> nn.Module:
    """Running statistics as after a training."""
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 2.0)
    return norm


def _images(subject: Subject) -> Tensor:
    generator = torch.Generator().manual_seed(subject.seed + 1)
    images = torch.zeros(subject.batch, subject.size, dtype=torch.float64)
    if subject.picture == "normal":
        images = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    elif subject.picture == "constant":
        images += torch.randn(subject.batch, 1, generator=generator, dtype=torch.float64)
    elif subject.picture == "ramp":
        images += torch.linspace(-1, 1, subject.size, dtype=torch.float64) * torch.arange(1, subject.batch + 1)[:, None]
    elif subject.picture == "one voxel":
        images[:, subject.seed % subject.size] = 1.0
    return (subject.scale * images).reshape(subject.batch, *subject.shape).to(subject.dtype)
