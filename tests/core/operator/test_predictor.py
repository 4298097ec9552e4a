"""Whatever kind of network is passed, the answer is that of the plain one, and nothing of the caller's is changed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import Decomposition, HeadError, TrainingModeWarning, decompose, locality_radius

Networks = Callable[..., nn.Sequential]
TORCHSCRIPT = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Wrapped(nn.Module):
    """A network whose output goes through `after`."""

    def __init__(self, network: nn.Module, after: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.after = network, after
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.after(self.network(x))


class Normalised(nn.Module):
    """Batch normalisation and dropout, each with a mode of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.last = nn.Linear(3, 4)
        self.norm.running_mean.copy_(torch.tensor([0.1, -0.2, 0.3]))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.drop(self.norm(self.first(x)).tanh()).mean((2, 3)))
        return logits


@pytest.fixture
def network(cnn: Networks) -> nn.Sequential:
    return cnn((1, 7, 5), 4).double()


@pytest.fixture
def plain(network: nn.Sequential, image: Tensor) -> Decomposition:
    """The decomposition that every disguise of the network has to give."""
    return decompose(network, image, head="categorical")


def _assert_same(found: Decomposition, expected: Decomposition) -> None:
    for name in ("eigenvalues", "eigenvectors", "rank", "trace", "high", "low", "sensitivity", "logits", "probabilities"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), msg=lambda m, name=name: f"{name}: {m}")


@TORCHSCRIPT
def test_torchscript_by_scripting(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    scripted = torch.jit.script(network)
    for _ in range(3):  # the profiling executor rewrites its graph after the first runs
        _assert_same(decompose(scripted, image), plain)


@TORCHSCRIPT
def test_torchscript_by_tracing(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    traced = torch.jit.trace(network, image[:1])
    for _ in range(3):
        _assert_same(decompose(traced, image), plain)


def test_output_with_spatial_axes_of_size_one(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    _assert_same(decompose(Wrapped(network, lambda z: z[:, :, None, None]), image), plain)


def test_output_without_a_class_axis_is_one_output(network: nn.Sequential, image: Tensor) -> None:
    flat = decompose(Wrapped(network, lambda z: z[:, 1]), image, head="bernoulli")
    _assert_same(flat, decompose(Wrapped(network, lambda z: z[:, 1:2]), image, head="bernoulli"))
    assert flat.logits.shape == (3, 1)


def test_plain_callable(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    _assert_same(decompose(lambda x: network(x), image), plain)


def test_data_parallel_wrapper(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    _assert_same(decompose(nn.DataParallel(network).eval(), image), plain)


def test_network_kwargs_and_args_follow_the_batch(network: nn.Sequential, image: Tensor) -> None:
    def scaled(x: Tensor, shift: Tensor, *, gain: Tensor, sign: float) -> Tensor:
        logits: Tensor = sign * gain[:, None] * network(x) + shift
        return logits

    shift, gain = torch.randn(3, 4).double(), torch.tensor([1.0, 2.0, 0.5]).double()
    d = decompose(scaled, image, network_args=[shift], network_kwargs={"gain": gain, "sign": -1.0})
    radius = locality_radius(scaled, d, network_args=[shift], network_kwargs={"gain": gain, "sign": -1.0})
    for b in range(3):
        one = {"gain": gain[b : b + 1], "sign": -1.0}
        alone = decompose(scaled, image[b : b + 1], network_args=[shift[b : b + 1]], network_kwargs=one, locality=True)
        rank = int(alone.rank)
        torch.testing.assert_close(d.high[b], alone.high[0])
        torch.testing.assert_close(radius[b, :rank], alone.locality_radius[0], rtol=0.04, atol=0)


def test_train_mode_is_announced_and_every_mode_restored(image: Tensor) -> None:
    network = Normalised().train()
    network.norm.eval()
    modes = {name: module.training for name, module in network.named_modules()}
    truth = decompose(copy.deepcopy(network).eval(), image.float())
    with pytest.warns(TrainingModeWarning, match=r"Call network.eval\(\) first"):
        d = decompose(network, image.float())
    _assert_same(d, truth)
    assert {name: module.training for name, module in network.named_modules()} == modes


def test_warning_of_decompose_points_at_the_caller(image: Tensor) -> None:
    with pytest.warns(TrainingModeWarning) as caught:
        decompose(Normalised().train(), image.float())
    assert [w.filename for w in caught] == [__file__]


def test_warning_of_locality_radius_points_at_the_caller(image: Tensor) -> None:
    network = Normalised().eval()
    d = decompose(network, image.float())
    network.train()
    with pytest.warns(TrainingModeWarning) as caught:
        locality_radius(network, d)
    assert [w.filename for w in caught] == [__file__]


def test_train_mode_leaves_running_statistics_untouched(image: Tensor) -> None:
    network = Normalised().train()
    before = copy.deepcopy(network.state_dict())
    with pytest.warns(TrainingModeWarning):
        d = decompose(network, image.float())
    with pytest.warns(TrainingModeWarning):
        locality_radius(network, d)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_train_mode_is_restored_when_the_decomposition_is_refused(image: Tensor) -> None:
    network = Normalised().train()
    with pytest.warns(TrainingModeWarning), pytest.raises(HeadError):
        decompose(network, image.float(), head="probabilities")
    assert all(module.training for module in network.modules())


def test_eval_mode_network_draws_no_warning(network: nn.Sequential, image: Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decompose(network, image, locality=True)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_a_context_without_gradients(
    network: nn.Sequential, image: Tensor, plain: Decomposition, mode: Callable[[], Any]
) -> None:
    with mode():
        d = decompose(network, image)
        radius = locality_radius(network, d)
        assert not torch.is_grad_enabled()
    _assert_same(d, plain)
    torch.testing.assert_close(radius, locality_radius(network, plain))


def test_network_and_image_born_in_inference_mode(
    cnn: Networks, network: nn.Sequential, image: Tensor, plain: Decomposition
) -> None:
    with torch.inference_mode():
        born = cnn((1, 7, 5), 4).double()
        born.load_state_dict(network.state_dict())
        d = decompose(born, image.clone())
    assert all(p.is_inference() for p in born.parameters())
    _assert_same(d, plain)
    high, _ = d.project(image)
    torch.testing.assert_close(high, plain.high)


def test_further_inputs_born_in_inference_mode(network: nn.Sequential, image: Tensor) -> None:
    with torch.inference_mode():
        gain = torch.tensor([1.0, 2.0, 0.5]).double()
        d = decompose(lambda x, gain: gain[:, None] * network(x), image, network_kwargs={"gain": gain})
    gain = gain.clone()
    _assert_same(d, decompose(lambda x, gain: gain[:, None] * network(x), image, network_kwargs={"gain": gain}))


@TORCHSCRIPT
def test_torchscript_born_in_inference_mode(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    with torch.inference_mode():
        scripted = torch.jit.script(copy.deepcopy(network))
    _assert_same(decompose(scripted, image), plain)


@pytest.mark.parametrize("trainable", [True, False])
def test_parameters_keep_their_flags_and_get_no_gradient(
    network: nn.Sequential, image: Tensor, plain: Decomposition, trainable: bool
) -> None:
    network.requires_grad_(trainable)
    before = copy.deepcopy(network.state_dict())
    _assert_same(decompose(network, image), plain)
    assert all(p.requires_grad is trainable and p.grad is None for p in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_caller_s_image_is_left_as_it_was_by_an_in_place_first_layer(network: nn.Sequential, image: Tensor) -> None:
    writing = nn.Sequential(nn.ReLU(inplace=True), *network).eval()
    before = image.clone()
    d = decompose(writing, image)
    locality_radius(writing, d)
    torch.testing.assert_close(image, before, rtol=0, atol=0)
    torch.testing.assert_close(d.high + d.low, before)
    _assert_same(d, decompose(nn.Sequential(nn.ReLU(), *network).eval(), before))


def test_image_that_requires_grad_keeps_its_own_graph(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    leaf = image.clone().requires_grad_(True)
    _assert_same(decompose(network, leaf.tanh().atanh()), plain)
    assert leaf.grad is None
    assert leaf.requires_grad


def test_later_writes_to_the_caller_s_image_do_not_reach_the_result(network: nn.Sequential, image: Tensor) -> None:
    d = decompose(network, image)
    before = locality_radius(network, d)
    image.zero_()
    torch.testing.assert_close(locality_radius(network, d), before, rtol=0, atol=0)


def test_tensor_subclass_goes_in_and_plain_tensors_come_out(network: nn.Sequential, image: Tensor, plain: Decomposition) -> None:
    class Labelled(Tensor):
        pass

    d = decompose(network, image.as_subclass(Labelled))
    _assert_same(d, plain)
    assert {type(t) for t in (d.high, d.low, d.eigenvectors, d.logits, d.sensitivity, d.image)} == {Tensor}
    assert type(d.project(image.as_subclass(Labelled))[0]) is Tensor


def test_global_random_state_is_left_alone(network: nn.Sequential, image: Tensor) -> None:
    before = torch.get_rng_state()
    decompose(network, image, locality=True)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("head", "gap"), [("categorical", 0.0), ("categorical", 40.0), ("gaussian", 0.0)])
def test_default_device_of_the_caller_does_not_matter(network: nn.Sequential, image: Tensor, head: str, gap: float) -> None:
    network[-1].bias.data[1] += gap
    plain = decompose(network, image, head=head)
    with torch.device("meta"):  # stands for any default device that is not the image's
        d = decompose(network, image, head=head)
        radius = locality_radius(network, d)
    _assert_same(d, plain)
    torch.testing.assert_close(radius, locality_radius(network, plain))


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed view": lambda x: x.transpose(-1, -2).contiguous().transpose(-1, -2),
    "strided view": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout_of_the_image_does_not_matter(cnn: Networks, layout: str) -> None:
    network, x = cnn((3, 7, 5), 4).double(), torch.randn(2, 3, 7, 5, dtype=torch.float64)
    _assert_same(decompose(network, LAYOUTS[layout](x)), decompose(network, x))


def test_image_expanded_over_the_batch_survives_an_in_place_first_layer(network: nn.Sequential, image: Tensor) -> None:
    writing = nn.Sequential(nn.ReLU(inplace=True), *network).eval()
    _assert_same(decompose(writing, image[:1].expand(3, -1, -1, -1)), decompose(writing, image[:1].repeat(3, 1, 1, 1)))


def test_hooks_of_the_caller_survive(network: nn.Sequential, image: Tensor) -> None:
    seen: list[tuple[int, ...]] = []
    network[0].register_forward_hook(lambda module, args, output: seen.append(tuple(output.shape)))
    decompose(network, image)
    assert seen[0] == (3, 3, 7, 5)


def test_autocast_forward_gives_close_eigenvalues(cnn: Networks) -> None:
    network, x = cnn((1, 7, 5), 4), torch.randn(2, 1, 7, 5)
    truth = decompose(network, x, energy=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        d = decompose(network, x, energy=1.0)
    torch.testing.assert_close(d.trace, truth.trace, rtol=0.1, atol=0)
