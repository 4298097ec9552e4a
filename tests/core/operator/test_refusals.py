"""What PyTorch refuses names the layer and the cure, and the cure works; errors of the network's own stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from monai_ifim.core import ImageError, NetworkError, decompose


class Tanh(torch.autograd.Function):
    """tanh with a backward pass of its own, which has a derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (1 - x.tanh().square())


class OnceTanh(Tanh):
    backward = staticmethod(once_differentiable(Tanh.backward))  # type: ignore[assignment]


class WithoutBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.tanh()


class TwoGradients(Tanh):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient, gradient


class Calling(nn.Module):
    """A layer that calls a function."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """x + f(x), so that a part of every gradient goes past f."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def _network(layer: nn.Module) -> nn.Sequential:
    torch.manual_seed(3)
    body = nn.Sequential(nn.Conv2d(1, 3, 3), layer, nn.Tanh())
    return nn.Sequential(body, nn.Flatten(), nn.Linear(45, 3)).eval()


def _function(function: Callable[..., Tensor]) -> nn.Sequential:
    return _network(Calling(function))


def _image() -> Tensor:
    return torch.randn(2, 1, 7, 5, generator=torch.Generator().manual_seed(2))


def _hooked(inplace: bool) -> nn.Sequential:
    network = _network(nn.LeakyReLU(0.1, inplace=inplace))
    network[0][0].register_full_backward_hook(lambda *_: None)  # type: ignore[index]
    return network


def _overwritten(x: Tensor) -> Tensor:
    y = x.sigmoid()
    return y.mul_(2)


def _writing_into_a_parameter(x: Tensor) -> Tensor:
    weight = torch.ones(3, 1, 1, requires_grad=True)
    weight += 1
    return x * weight


def _own_gradient(x: Tensor, create_graph: bool) -> Tensor:
    """The gradient of a sum of squares, and that sum."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_(True)
        total = x.square().sum((1, 2, 3), keepdim=True)
        (gradient,) = torch.autograd.grad(total.sum(), x, create_graph=create_graph)
        return gradient + total


def _born_in_inference_mode() -> Tensor:
    with torch.inference_mode():
        return torch.rand(3, 3)


class Holder(nn.Module):
    """x times w, which is an attribute or a buffer."""

    def __init__(self, weight: Tensor, registered: bool = False) -> None:
        super().__init__()
        if registered:
            self.register_buffer("weight", weight)
        else:
            self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x[..., :3].matmul(self.weight) if self.weight.ndim == 2 else x * self.weight


def _with_hook(x: Tensor, always: bool) -> Tensor:
    if always or x.requires_grad:
        x.register_hook(lambda gradient: None)
    return x.sin()


def _through_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(np.tanh(x.numpy()))


WEIGHT = torch.eye(3)
GAIN = torch.ones(3, 1, 1)


@dataclass(frozen=True)
class Case:
    """make: a network that is refused; message: what is said; cured: the network after the cure."""

    make: Callable[[], nn.Module]
    message: str
    cured: Callable[[], nn.Module]


CASES = {
    "in-place layer behind a backward hook": Case(
        lambda: _hooked(inplace=True),
        r"layer '0\.1' \(LeakyReLU\): .*being modified inplace.*: a backward hook stands before.*handle\.remove.*inplace=False",
        lambda: _hooked(inplace=False),
    ),
    "saved tensor overwritten": Case(
        lambda: _function(_overwritten),
        r"layer '0\.1' \(Calling\) has no backward pass: .*modified by an inplace operation.*write it out of place",
        lambda: _function(lambda x: x.sigmoid().mul(2)),
    ),
    "leaf overwritten": Case(
        lambda: _function(_writing_into_a_parameter),
        r"layer '0\.1' \(Calling\): a leaf Variable.*write it out of place",
        lambda: _function(lambda x: x * (torch.ones(3, 1, 1) + 1)),
    ),
    "tensor of another dtype": Case(
        lambda: _network(Holder(WEIGHT.double())),
        r"layer '0\.1' \(Holder\): .*dtype.*register_buffer\), so that network\.to\(dtype\)",
        lambda: _network(Holder(WEIGHT.double(), registered=True)).float(),
    ),
    "tensor on another device": Case(
        lambda: _network(Holder(GAIN.to("meta"))),
        r"layer '0\.1' \(Holder\): .*another device than the image: register it as a buffer",
        lambda: _network(Holder(GAIN, registered=True)),
    ),
    "function without a backward pass": Case(
        lambda: _function(WithoutBackward.apply),
        r"layer '0\.1' \(Calling\) has no backward pass: You must implement.*give this torch\.autograd\.Function a backward",
        lambda: _function(Tanh.apply),
    ),
    "function with a wrong backward pass": Case(
        lambda: _function(TwoGradients.apply),
        r"layer '0\.1' \(Calling\) has no backward pass: .*incorrect number of gradients.*one gradient for each input",
        lambda: _function(Tanh.apply),
    ),
    "operation without a derivative": Case(
        lambda: _function(lambda x: x * torch.bincount(torch.arange(3), weights=x[0, :, 0, 0])[:, None, None].to(x.dtype)),
        r"layer '0\.1' \(Calling\) has no backward pass: derivative for aten::bincount is not implemented: replace",
        lambda: _function(torch.sin),
    ),
    "tensor made in inference mode": Case(
        lambda: _network(Holder(_born_in_inference_mode())),
        r"layer '0\.1' \(Holder\): Inference tensors cannot be saved for backward.*use its \.clone\(\), or register it",
        lambda: _network(Holder(_born_in_inference_mode(), registered=True)),
    ),
    "sparse weight for an operation of dense ones": Case(
        lambda: _function(lambda x: torch.conv2d(x, torch.ones(3, 3, 1, 1).to_sparse())),
        r"layer '0\.1' \(Calling\): .*call \.to_dense\(\) on what is sparse",
        lambda: _function(lambda x: torch.conv2d(x, torch.ones(3, 3, 1, 1).to_sparse().to_dense())),
    ),
    "graph of an earlier pass": Case(
        lambda: _function(partial(_own_gradient, create_graph=False)),
        r"layer '0\.1' \(Calling\) has no backward pass: .*second time.*create_graph=True to its own torch\.autograd\.grad",
        lambda: _function(partial(_own_gradient, create_graph=True)),
    ),
    "gradient inside of the network": Case(
        lambda: _function(lambda x: torch.autograd.grad(x.square().sum(), x, create_graph=True)[0]),
        r"layer '0\.1' \(Calling\): element 0 of tensors.*under torch\.enable_grad\(\), with respect to a tensor that requires",
        lambda: _function(partial(_own_gradient, create_graph=True)),
    ),
    "hook on an activation": Case(
        lambda: _function(partial(_with_hook, always=True)),
        r"layer '0\.1' \(Calling\): cannot register a hook.*only where there is one, if x\.requires_grad",
        lambda: _function(partial(_with_hook, always=False)),
    ),
    "numpy": Case(
        lambda: _function(_through_numpy),
        r"layer '0\.1' \(Calling\): Can't call numpy\(\).*write it with operations of PyTorch",
        lambda: _function(torch.tanh),
    ),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("method", ["exact", "matrix_free"])
def test_refusal_names_layer_and_cure_and_the_cure_works(kind: str, method: Any) -> None:
    case = CASES[kind]
    with pytest.raises(NetworkError, match=case.message) as caught:
        decompose(case.make(), _image(), method=method)
    assert isinstance(caught.value.__cause__, RuntimeError)
    decompose(case.cured(), _image(), method=method)


def test_sparse_weight_is_recognised_by_the_kernels_of_several_threads_too() -> None:
    case, threads = CASES["sparse weight for an operation of dense ones"], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(NetworkError, match=case.message):
            decompose(case.make(), _image())
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("around", [nn.Sequential, Residual])
def test_function_that_is_differentiable_once_is_refused_by_matrix_free_only(around: Callable[[nn.Module], nn.Module]) -> None:
    once, plain = (_network(around(Calling(f))) for f in (OnceTanh.apply, torch.tanh))
    with pytest.raises(
        NetworkError, match=r"OnceTanh in layer '0\.1\.(0|inner)' \(Calling\)|layer '0\.1\.0' \(Calling\)"
    ) as caught:
        decompose(once, _image(), method="matrix_free")
    assert "method='exact' or 'adaptive'" in str(caught.value)
    for method in ("exact", "adaptive"):
        found = decompose(once, _image(), method=method)
        torch.testing.assert_close(found.eigenvalues, decompose(plain, _image(), method=method).eigenvalues)


def test_function_with_a_differentiable_backward_pass_is_taken_by_matrix_free() -> None:
    found, truth = (decompose(_function(f), _image(), method="matrix_free") for f in (Tanh.apply, torch.tanh))
    torch.testing.assert_close(found.eigenvalues, truth.eigenvalues)


class SecondOnly(Tanh):
    """Refuses to be differentiated twice, aloud."""

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            raise RuntimeError("no second derivative")
        return Tanh.backward(ctx, gradient)


def test_layers_without_forward_mode_and_without_a_second_derivative_are_both_named() -> None:
    resample = Calling(
        lambda x: nn.functional.grid_sample(x, torch.zeros(len(x), 5, 3, 2, dtype=x.dtype) + 0.1, align_corners=False)
    )
    network = _network(nn.Sequential(resample, Calling(SecondOnly.apply)))
    with pytest.raises(
        NetworkError,
        match=r"forward-mode derivatives \(layer '0\.1\.0' \(Calling\): Trying to use forward AD with grid_sampler_2d.*"
        r"differentiable backward pass \(layer '0\.1\.1' \(Calling\): no second derivative\): use method='exact'",
    ):
        decompose(network, _image(), method="matrix_free")
    decompose(network, _image(), method="exact")


@pytest.mark.parametrize(
    ("said", "cure"),
    [
        ("Input type (torch.cuda.FloatTensor) and weight type (torch.FloatTensor) should be the same", "another device"),
        ("Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) should be the same", "another device"),
        ("Input type (torch.cuda.DoubleTensor) and bias type (torch.cuda.FloatTensor) should be the same", "another dtype"),
        (
            "Expected all tensors to be on the same device, but got mat2 is on cpu, different from other tensors on cuda:0",
            "another device",
        ),
    ],
)
def test_devices_are_told_from_dtypes(said: str, cure: str) -> None:
    """What accelerators say; their tensors are not at hand."""

    def refuse(x: Tensor) -> Tensor:
        raise RuntimeError(said)

    with pytest.raises(NetworkError, match=rf"layer '0\.1' \(Calling\): .*: a tensor of it (is on|has) {cure}"):
        decompose(_function(refuse), _image())


OWN_ERRORS = [
    RuntimeError("my clear message"),
    ValueError("images of 8 x 8 are needed"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000 bytes."),
]


@pytest.mark.parametrize("error", OWN_ERRORS, ids=str)
@pytest.mark.filterwarnings("ignore::monai_ifim.core.errors.MemoryWarning")
def test_errors_of_the_network_s_own_and_of_memory_stay_as_they_are(error: Exception) -> None:
    def refuse(x: Tensor) -> Tensor:
        raise error

    with pytest.raises(type(error)) as caught:
        decompose(_function(refuse), _image())
    assert caught.value is error


def test_errors_of_memory_in_the_backward_pass_stay_as_they_are() -> None:
    class Hungry(Tanh):
        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 80000 bytes.")

    with pytest.raises(RuntimeError, match="allocate memory"):
        decompose(_function(Hungry.apply), _image())


def test_sparse_image_is_refused_and_the_cure_works() -> None:
    network, sparse = _function(torch.tanh), _image().to_sparse()
    with pytest.raises(ImageError, match=r"sparse_coo: pass a dense tensor, image\.to_dense\(\)"):
        decompose(network, sparse)
    decompose(network, sparse.to_dense())


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_torchscript_that_refuses_is_named() -> None:
    script = torch.jit.trace(Holder(WEIGHT.double()).eval(), torch.rand(2, 3, 5, 3).double())
    with pytest.raises(NetworkError, match=r"layer '0\.1' \(Holder\): expected m1 and m2 to have the same dtype.*register it"):
        decompose(_network(script), _image())


class OwnGradient(nn.Module):
    """Reads the gradient of an inner network, by torch.func or by autograd."""

    def __init__(self, functional: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.functional = functional
        self.inner, self.last = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh()), nn.Linear(35, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.functional:
            return self.last(torch.func.grad(lambda y: self.inner(y).square().sum())(x).flatten(1))  # type: ignore[no-any-return]
        with torch.enable_grad():
            y = x if x.requires_grad else x.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.inner(y).square().sum(), y, create_graph=True)
        return self.last(gradient.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("functional", [False, True])
def test_a_network_that_differentiates_itself_is_taken_without_a_budget(functional: bool) -> None:
    network = OwnGradient(functional).eval()
    with pytest.raises(NetworkError, match="in its own forward pass.*leave memory_budget out"):
        decompose(network, _image(), memory_budget="64MiB")
    exact, products = decompose(network, _image()), decompose(network, _image(), method="matrix_free")  # the cure
    torch.testing.assert_close(exact.eigenvalues, products.eigenvalues, rtol=1e-4, atol=0.0)
