"""Verification notices derivatives that are not those of the network, and accepts those that are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_ifim.core import GaussianHead, GradientWarning, NetworkError, decompose

SEEDS = range(20)
IMAGE = (1, 2, 13, 10)


class Function(nn.Module):
    """A small convolutional network with `middle` between its two parts."""

    def __init__(self, middle: Callable[[Tensor], Tensor], activation: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 6, 3), nn.Linear(6, 4)
        self.middle, self.activation = middle, activation

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.middle(self.activation(self.first(x))).mean((2, 3)))
        return logits


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def _two_branches(x: Tensor) -> Tensor:
    return x + 2 * functional.avg_pool2d(x, 3, 1, 1).detach()


def _quantised(x: Tensor) -> Tensor:
    """Eight levels, with the gradient of the identity."""
    return x + (torch.round(x * 4) / 4 - x).detach()


def _cut_shortcut(x: Tensor) -> Tensor:
    return x.tanh() + functional.avg_pool2d(x, 1).data


def _reversed(x: Tensor) -> Tensor:
    result: Tensor = Reversal.apply(x)  # type: ignore[no-untyped-call]
    return result


def _guided(network: nn.Module) -> nn.Module:
    """Guided backpropagation's hooks, left on its rectifiers."""

    def positive(module: nn.Module, before: Any, after: Any) -> Any:
        return tuple(None if gradient is None else gradient.clamp(min=0) for gradient in before)

    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_full_backward_hook(positive)
    return network


WRONG: dict[str, Callable[[], nn.Module]] = {
    "shortcut cut by .data": lambda: Function(_cut_shortcut),
    "gradient reversed": lambda: Function(_reversed),
    "hooks of guided backpropagation": lambda: _guided(
        nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(324, 4))
    ),
    "straight-through quantiser": lambda: Function(_quantised),
    "one of two branches detached": lambda: Function(_two_branches),
}


def _outcome(network: nn.Module, image: Tensor, **settings: Any) -> dict[str, Any]:
    """The record of the verification; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", GradientWarning)
        record: dict[str, Any] = decompose(network.eval(), image, verify="always", **settings).record["verification"]
    return record


@pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
@pytest.mark.parametrize("kind", [kind for kind in WRONG if not kind.startswith("hooks")])
def test_wrong_derivatives_are_noticed(kind: str, method: str) -> None:
    for seed in SEEDS if method == "exact" else range(3):
        torch.manual_seed(seed)
        network, image = WRONG[kind]().eval(), torch.rand(IMAGE)
        rank = {"rank": 2} if method == "matrix_free" else {}
        with pytest.warns(GradientWarning, match=r"image 1: the network's derivatives deviate by \d+% from differences"):
            d = decompose(network, image, method=method, seed=seed, **rank)
        found = d.record["verification"]
        assert (found["outcome"], found["by"]) == ("disagrees", "itself")
        assert found["deviation"] > found["tolerance"] == pytest.approx(0.1)


def test_hooks_left_on_are_noticed_and_named() -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        network, image = WRONG["hooks of guided backpropagation"]().eval(), torch.rand(IMAGE)
        with pytest.warns(GradientWarning, match=r"backward hooks on 1 \(ReLU\), 3 \(ReLU\): remove them"):
            decompose(network, image)
    with pytest.raises(NetworkError, match="not the transpose"):
        decompose(network, image, method="matrix_free", rank=1)
    for module in network.modules():  # the cure
        module._backward_hooks.clear()
    assert _outcome(network, image)["outcome"] == "agrees"


def test_a_backward_pass_of_its_own_is_named() -> None:
    with pytest.warns(GradientWarning, match="a backward pass of their own: Reversal"):
        decompose(WRONG["gradient reversed"]().eval(), torch.rand(IMAGE))


RIGHT: dict[str, Callable[[], nn.Module]] = {
    "smooth": lambda: Function(torch.sin),
    "rectifiers": lambda: nn.Sequential(
        nn.Conv2d(2, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(192, 4)
    ),
    "few rectifiers": lambda: nn.Sequential(nn.Flatten(), nn.Linear(260, 3), nn.ReLU(), nn.Linear(3, 4)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(260, 4)),
}


@pytest.mark.parametrize(
    "settings",
    [{}, {"precision": "float64"}, {"method": "matrix_free", "rank": 2}, {"metric": 0.3}, {"memory_budget": "64MiB"}],
    ids=str,
)
@pytest.mark.parametrize("kind", RIGHT)
def test_right_derivatives_are_never_doubted(kind: str, settings: dict[str, Any]) -> None:
    for seed in SEEDS if settings == {} else range(5):
        torch.manual_seed(seed)
        found = _outcome(RIGHT[kind](), torch.randn(IMAGE), seed=seed, **settings)
        assert found["outcome"] == "agrees", found


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_has_a_tolerance_of_its_own(precision: Any) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        found = _outcome(RIGHT["rectifiers"](), torch.randn(IMAGE), precision=precision)
        assert found["outcome"] == "agrees"
        assert found["tolerance"] > 0.1


@pytest.mark.parametrize("gap", [25.0, 75.0, 150.0])
def test_saturated_predictions_are_not_doubted(gap: float) -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        network = Function(torch.sin)
        with torch.no_grad():
            network.last.bias[1] += gap
        assert _outcome(network, torch.randn(IMAGE))["outcome"] == "agrees"


class Masked(Function):
    """One class is switched off by a large negative logit."""

    def __init__(self, middle: Callable[[Tensor], Tensor], value: float) -> None:
        super().__init__(middle)
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).index_fill(1, torch.tensor([2]), self.value)


@pytest.mark.parametrize("value", [-1e4, -1e30, torch.finfo(torch.float32).min])
def test_masked_classes_hide_nothing(value: float) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        assert _outcome(Masked(torch.sin, value), torch.randn(IMAGE))["outcome"] == "agrees"
        with pytest.warns(GradientWarning):
            decompose(Masked(_two_branches, value).eval(), torch.rand(IMAGE))


class Coarse(nn.Module):
    """A network that converts to another precision by itself, and back."""

    def __init__(self, kind: str, network: nn.Module) -> None:
        super().__init__()
        self.kind, self.network = kind, network

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "cast":
            return self.network(x).float()  # type: ignore[no-any-return]
        if self.kind == "cast of the image":
            return self.network(x.bfloat16().to(x.dtype))  # type: ignore[no-any-return]
        with torch.autocast("cpu", getattr(torch, self.kind)):
            return self.network(x).float()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "cast", "cast of the image"])
def test_precision_that_a_network_chooses_itself_is_not_doubted(kind: str) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        smooth = _outcome(Coarse(kind, Function(torch.sin)), torch.randn(IMAGE))["outcome"]
        kinked = _outcome(Coarse(kind, nn.Sequential(nn.ReLU6(), Function(torch.sin))), ZEROS)["outcome"]
        assert {smooth, kinked} <= ({"agrees", "inconclusive"} if kind == "cast of the image" else {"agrees"})


def test_a_cast_at_the_end_hides_no_cut_gradient() -> None:
    for precision in ("float32", "float64"):
        torch.manual_seed(0)
        with pytest.warns(GradientWarning):
            decompose(Coarse("cast", Function(_two_branches)).eval(), torch.rand(IMAGE), precision=precision)  # type: ignore[arg-type]


def test_another_default_device_does_not_matter() -> None:
    torch.manual_seed(0)
    network, image = Function(torch.sin), torch.rand(IMAGE)
    with torch.device("meta"):
        assert _outcome(network, image)["outcome"] == "agrees"
        assert _outcome(network, image, method="matrix_free", rank=1)["outcome"] == "agrees"


ZEROS = torch.where(torch.arange(260).reshape(IMAGE) % 3 > 0, torch.rand(IMAGE), 0.0)


@pytest.mark.parametrize(
    ("network", "image"),
    [
        (lambda: nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(528, 3)), torch.zeros(IMAGE)),
        (lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.MaxPool2d(3), nn.Flatten(), nn.Linear(36, 3)), torch.ones(IMAGE)),
        (lambda: nn.Sequential(nn.ReLU6(), nn.Conv2d(2, 6, 3), nn.Flatten(), nn.Linear(528, 3)), ZEROS),
    ],
    ids=["rectifiers at zero", "ties of max pooling", "a clamp at its bound"],
)
def test_an_image_on_a_kink_is_verified_beside_it(network: Callable[[], nn.Module], image: Tensor) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        found = _outcome(network(), image, seed=seed)
        assert found["outcome"] == "agrees"
        assert "lies on a kink" in found["reason"]


def test_a_cut_gradient_is_noticed_on_a_kink_too() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.ReLU6(), Function(_two_branches)).eval()
        with pytest.warns(GradientWarning):
            decompose(network, ZEROS, seed=seed)


class Cancelling(nn.Module):
    """A function whose float32 gradient consists of rounding errors."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.flatten(1)[:, :3]
        steep = 1e-2 * (1e11 * y).sin()
        plain = 1.0 * y
        return steep + plain - 1e-2 * (1e11 * y).sin()


def test_inaccurate_products_are_told_from_a_cut_gradient() -> None:
    torch.manual_seed(0)
    image = torch.rand(IMAGE)
    with pytest.warns(GradientWarning, match="precision='float64'"):
        decompose(Cancelling().eval(), image)
    assert _outcome(Cancelling().eval(), image, precision="float64")["outcome"] == "agrees"  # the cure


def test_large_offsets_are_not_doubted() -> None:
    for seed in SEEDS:
        torch.manual_seed(seed)
        network = RIGHT["rectifiers"]()
        weights = network[0].weight  # type: ignore[index]
        with torch.no_grad():
            weights -= weights.mean((1, 2, 3), keepdim=True)  # so that the offset cancels in the first layer
        assert _outcome(network, torch.randn(IMAGE) + 1000.0)["outcome"] == "agrees"


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_uniform_images_are_not_doubted(level: float, classes: int) -> None:
    """Rounding errors of the output count whatever their signs; an image of zeros has none of its own."""
    for seed in range(10):
        torch.manual_seed(seed)
        network = Function(torch.sin)
        network.last = nn.Linear(6, classes)
        for settings in ({}, {"method": "matrix_free", "rank": 1}):
            assert _outcome(network, torch.full(IMAGE, level), seed=seed, **settings)["outcome"] == "agrees"
        assert _outcome(network, torch.full(IMAGE, level), head="bernoulli", seed=seed)["outcome"] == "agrees"


def test_a_constant_answer_is_not_doubted() -> None:
    network = Function(torch.sin)
    with torch.no_grad():
        network.first.bias.fill_(-1.0)
        network.first.weight.zero_()
    network.activation = torch.relu  # no rectifier is on at any image
    assert _outcome(network, torch.rand(IMAGE))["outcome"] == "agrees"


def test_values_are_those_of_other_scales_of_image_and_output() -> None:
    for scale in (1e-6, 1e6):
        torch.manual_seed(0)
        network = RIGHT["smooth"]()
        with torch.no_grad():
            network.first.weight /= scale  # type: ignore[union-attr, operator]
            network.last.weight *= 1e-3  # type: ignore[union-attr, operator]
        assert _outcome(network, scale * torch.randn(IMAGE), head=GaussianHead(1e-4))["outcome"] == "agrees"


class Chance(nn.Module):
    """Dropout that eval mode does not switch off."""

    def __init__(self, amount: float) -> None:
        super().__init__()
        self.first, self.last, self.amount = nn.Conv2d(2, 8, 3), nn.Linear(8, 3), amount

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x).mean((2, 3))
        return self.last(features + self.amount * functional.dropout(features, 0.5, training=True))  # type: ignore[no-any-return]


@pytest.mark.parametrize("amount", [1.0, 1e-2, 1e-4])
def test_an_answer_by_chance_is_refused(amount: float) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        with pytest.raises(NetworkError, match="another answer each time"):
            decompose(Chance(amount).eval(), torch.rand(IMAGE))


class Learns(nn.Module):
    """Follows the mean of its features, in eval mode too."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.first, self.last, self.always = nn.Conv2d(2, 8, 3), nn.Linear(8, 3), always
        self.register_buffer("seen", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        features = self.first(x).mean((2, 3))
        if self.always or self.training:
            self.seen.mul_(0.9).add_(0.1 * features.detach().mean(0))  # type: ignore[operator, union-attr]
        return self.last(features - self.seen)  # type: ignore[no-any-return, operator]


def test_an_answer_that_learns_is_refused_and_the_buffer_named() -> None:
    torch.manual_seed(0)
    network = Learns(always=True).eval()
    for _ in range(2):
        with pytest.raises(NetworkError, match="the network changes seen when it answers.*freeze these values in eval mode"):
            decompose(network, torch.rand(IMAGE))
        assert not network.seen.any()  # type: ignore[operator, union-attr]
    network.always = False  # the cure
    assert _outcome(network, torch.rand(IMAGE))["outcome"] == "agrees"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_networks_of_half_precision_are_not_doubted(dtype: torch.dtype) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        network, image = RIGHT["rectifiers"]().eval().to(dtype), torch.randn(IMAGE).to(dtype)
        found = decompose(network, image, seed=seed).record["verification"]
        assert found["outcome"] == "agrees"


def test_the_answer_is_compared_alone_where_neighbours_in_a_pass_have_an_influence() -> None:
    torch.manual_seed(0)
    network = Function(lambda x: x - x.mean(0, keepdim=True) + x.square().mean())
    found = _outcome(network, torch.rand(IMAGE))
    assert found["outcome"] == "agrees"
    assert found["passes"] == 4


def test_two_passes_are_enough_for_a_smooth_network() -> None:
    torch.manual_seed(0)
    found = _outcome(Function(torch.sin), torch.rand(IMAGE))
    assert found["passes"] == 2
    assert found["repeated"] < 1e-6
    assert 0 < found["step"] < 0.01


def test_the_deviation_is_that_of_the_derivative() -> None:
    """A gradient made three times too large deviates by 2/3, in every direction."""
    torch.manual_seed(0)
    network = Function(lambda x: 3 * x - 2 * x.detach())
    with pytest.warns(GradientWarning):
        found = decompose(network.double().eval(), torch.rand(IMAGE).double()).record["verification"]
    assert found["deviation"] == pytest.approx(2 / 3, rel=1e-3)


def test_answers_that_differ_by_little_from_pass_to_pass_are_refused() -> None:
    """One number of noise for all images of a pass: no difference within a pass shows it."""
    passes = iter(range(1000))
    network = Function(lambda x: x * (1 + 3e-4 * (next(passes) % 2))).eval()
    with pytest.raises(NetworkError, match="another answer each time"):
        decompose(network, torch.randn(IMAGE, generator=torch.Generator().manual_seed(0)))
