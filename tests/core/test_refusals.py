"""What cannot be decomposed is refused, and the message names the cure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.core import GaussianHead, HeadError, IFIMError, ImageError, NetworkError, decompose

Networks = Callable[..., nn.Sequential]
TORCHSCRIPT = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


class Function(nn.Module):
    """A module in eval mode that computes `function(network(x))`."""

    def __init__(self, network: nn.Module, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network, self.function = network, function
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.function(self.network(x))


@pytest.fixture
def network(cnn: Networks) -> nn.Sequential:
    return cnn((1, 7, 5), 4).double()


BAD_IMAGES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "nan": (lambda x: x.log(), r"NaN or infinite values.*torch\.nan_to_num"),
    "infinite": (lambda x: x / 0, r"NaN or infinite values.*torch\.nan_to_num"),
    "integer": (lambda x: x.to(torch.int16), r"torch\.int16.*image\.float\(\)"),
    "boolean": (lambda x: x > 0, r"torch\.bool.*image\.float\(\)"),
    "complex": (lambda x: x.to(torch.complex128), r"torch\.complex128.*image\.float\(\)"),
    "empty batch": (lambda x: x[:0], r"\(0, 1, 7, 5\).*without any element"),
    "no batch axis": (lambda x: x[0], r"\(1, 7, 5\).*image\[None\]"),
    "too many axes": (lambda x: x[None, None], r"\(1, 1, 3, 1, 7, 5\).*\[B, channel, H, W, D\] is needed"),
    "other dtype": (lambda x: x.float(), r"torch\.float32 and the network torch\.float64.*image\.to\(dtype\)"),
    "array": (lambda x: x.numpy(), r"ndarray: pass a torch tensor"),
}


@pytest.mark.parametrize("fault", BAD_IMAGES)
def test_image_that_cannot_be_decomposed(network: nn.Sequential, image: Tensor, fault: str) -> None:
    spoil, message = BAD_IMAGES[fault]
    with pytest.raises(ImageError, match=message):
        decompose(network, spoil(image))


def test_image_on_another_device_than_the_network(network: nn.Sequential, image: Tensor) -> None:
    with pytest.raises(ImageError, match=r"on cpu and the network on meta: move one, image\.to\(device\)"):
        decompose(network.to("meta"), image)


BAD_OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "infinite": (lambda z: z / 0, "output is NaN or infinite.*scaling of the image"),
    "nan for one image": (lambda z: torch.cat([z[:-1], z[-1:] * torch.nan]), "output is NaN or infinite.*wider dtype"),
    "detached": (lambda z: z.detach(), "no gradient flows.*Pass the differentiable PyTorch module"),
    "numpy": (lambda z: z.detach().numpy(), "returned ndarray.*pass the PyTorch module or TorchScript itself"),
    "through numpy": (lambda z: torch.from_numpy(np.exp(z.detach().numpy())), "no gradient flows.*numpy code"),
    "class indices": (lambda z: z.argmax(1), "torch.int64: return the logits, not class indices"),
    "segmentation": (lambda z: z[..., None, None].expand(-1, -1, 7, 5), r"\(3, 4, 7, 5\).*reduce it to \[B, C\]"),
    "no batch axis": (lambda z: z[0], r"shape \(4,\) for 3 image\(s\): its first axis must be the batch"),
    "one number": (lambda z: z.sum(), r"shape \(\) for 3 image\(s\): its first axis must be the batch"),
    "nothing": (lambda z: None, "returned NoneType, not a tensor"),
    "gradient of 0/0": (lambda z: (z - z.detach()).abs().sqrt() + z, "product is NaN or infinite.*sqrt"),
    "batch mean": (lambda z: z - z.mean(0), "depends on the rest of the batch.*one image a batch"),
    "chance": (lambda z: z + torch.randn_like(z), "or is random"),
}


@pytest.mark.parametrize("fault", BAD_OUTPUTS)
def test_network_that_cannot_be_decomposed(network: nn.Sequential, image: Tensor, fault: str) -> None:
    spoil, message = BAD_OUTPUTS[fault]
    with pytest.raises(NetworkError, match=message):
        decompose(Function(network, spoil), image, head="categorical")


def test_inference_mode_inside_the_network_is_named(network: nn.Sequential, image: Tensor) -> None:
    with pytest.raises(NetworkError, match="no gradient flows.*inference_mode inside forward"):
        decompose(torch.inference_mode()(network.eval().forward), image)


def test_batch_of_one_is_the_cure_for_a_network_that_subtracts_the_batch_mean(network: nn.Sequential, image: Tensor) -> None:
    centred = Function(network, lambda z: z - 0.5 * z.mean(0))
    with pytest.raises(NetworkError, match="one image a batch"):
        decompose(centred, image[:2])
    assert decompose(centred, image[:1], energy=1.0).rank.tolist() == [3]


def test_batch_norm_without_running_statistics_is_named(network: nn.Sequential, image: Tensor) -> None:
    unstable = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), network).eval().double()
    with pytest.raises(NetworkError, match=r"layer '0' \(BatchNorm2d\).*track_running_stats=True"):
        decompose(unstable, image[:1])


def test_operation_without_a_backward_pass_is_named(image: Tensor) -> None:
    class Opaque(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] * 1

    with pytest.raises(NetworkError, match="no backward pass.*differentiable operations"):
        decompose(Opaque.apply, image)


def _softmax(z: Tensor) -> Tensor:
    return z.softmax(1)


def _sigmoid(z: Tensor) -> Tensor:
    return z.sigmoid()


BAD_HEADS: dict[str, tuple[Callable[[Tensor], Tensor], str, str]] = {
    "softmax, auto": (_softmax, "auto", "already a softmax.*head='probabilities'.*remove the softmax"),
    "softmax, categorical": (_softmax, "categorical", "already a softmax.*head='probabilities'"),
    "softmax, bernoulli": (_softmax, "bernoulli", "last operation is a softmax.*head='probabilities'"),
    "sigmoid, auto": (_sigmoid, "auto", "last operation is a sigmoid.*pass head='bernoulli'"),
    "sigmoid, bernoulli": (_sigmoid, "bernoulli", "last operation is a sigmoid.*remove the sigmoid"),
    "reshaped sigmoid, auto": (lambda z: z.sigmoid()[:, :, None], "auto", "last operation is a sigmoid"),
    "reshaped sigmoid, bernoulli": (lambda z: z.sigmoid().squeeze(-1), "bernoulli", "last operation is a sigmoid"),
    "logits, probabilities": (lambda z: z, "probabilities", r"values outside \[0, 1\].*head='categorical'"),
    "one output, auto": (lambda z: z[:, :1], "auto", "single output.*head='bernoulli'.*head='gaussian'"),
    "one output, categorical": (lambda z: z[:, :1], "categorical", "at least two outputs.*head='bernoulli'"),
    "no such head": (lambda z: z, "softmax", "unknown head 'softmax': choose one of 'auto', 'categorical'"),
}


@pytest.mark.parametrize("fault", BAD_HEADS)
def test_output_that_does_not_fit_its_head(network: nn.Sequential, image: Tensor, fault: str) -> None:
    function, head, message = BAD_HEADS[fault]
    with pytest.raises(HeadError, match=message):
        decompose(Function(network, function), image, head=head)


@TORCHSCRIPT
@pytest.mark.parametrize(("last", "head"), [(nn.Sigmoid(), "auto"), (nn.Sigmoid(), "bernoulli"), (nn.Softmax(1), "auto")])
@pytest.mark.parametrize("runs", [1, 4])
def test_probabilities_of_a_torchscript_network_are_recognised_however_often_it_has_run(
    network: nn.Sequential, image: Tensor, last: nn.Module, head: str, runs: int
) -> None:
    scripted = torch.jit.script(nn.Sequential(*network, last).eval())
    for _ in range(runs - 1):
        scripted(image.requires_grad_(True)).sum().backward()
    with pytest.raises(HeadError, match="head='probabilities'"):
        decompose(scripted, image, head=head)


@pytest.mark.parametrize("energy", [0, 0.0, 1.5, True, -0.1, float("nan")])
def test_energy_out_of_range(network: nn.Sequential, image: Tensor, energy: Any) -> None:
    with pytest.raises(IFIMError, match=re.escape(f"energy={energy!r}") + ".*above 0 and up to 1"):
        decompose(network, image, energy=energy)


@pytest.mark.parametrize("rank", [0, -1, 1.5, 2.5, True, "2"])
def test_rank_out_of_range(network: nn.Sequential, image: Tensor, rank: Any) -> None:
    with pytest.raises(IFIMError, match=re.escape(f"rank={rank!r}") + ".*whole number from 1 on"):
        decompose(network, image, rank=rank)


def test_unknown_method(network: nn.Sequential, image: Tensor) -> None:
    with pytest.raises(IFIMError, match="unknown method 'power': choose"):
        decompose(network, image, method="power")  # type: ignore[arg-type]


PROJECTED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "array": (lambda x: x.numpy(), r"the image is ndarray: pass a torch tensor \[B, channel, \*spatial\]"),
    "NaN": (lambda x: x / 0 * 0, "NaN or infinite values: mask or clip them first"),
    "other size": (lambda x: x[..., :4], r"\(3, 1, 7, 4\); this subspace splits images of \(3, 1, 7, 5\)"),
    "other batch": (lambda x: x[:1], r"\(1, 1, 7, 5\); this subspace splits images of \(3, 1, 7, 5\)"),
    "integer": (lambda x: x.long(), r"torch\.int64: convert it, image\.float\(\)"),
}


@pytest.mark.parametrize("fault", PROJECTED)
def test_image_that_cannot_be_projected(network: nn.Sequential, image: Tensor, fault: str) -> None:
    spoil, message = PROJECTED[fault]
    with pytest.raises(ImageError, match=message):
        decompose(network, image).project(spoil(image))


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), torch.ones(2, 2)])
def test_noise_that_is_not_positive(sigma: Any) -> None:
    with pytest.raises(HeadError, match="sigma must be positive"):
        GaussianHead(sigma)


@pytest.mark.parametrize("covariance", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]], [1.0, 1.0], [[1.0, 0.0]]])
def test_matrix_that_is_no_covariance(covariance: Any) -> None:
    with pytest.raises(HeadError, match="symmetric positive definite"):
        GaussianHead(covariance=torch.tensor(covariance))


@pytest.mark.parametrize("head", [GaussianHead(torch.ones(3)), GaussianHead(covariance=torch.eye(5))])
def test_gaussian_head_of_another_size_than_the_output(network: nn.Sequential, image: Tensor, head: GaussianHead) -> None:
    with pytest.raises(HeadError, match=r"was made for [35] output\(s\) and the network gives 4"):
        decompose(network, image, head=head)


def test_every_refusal_can_be_caught_as_a_value_error() -> None:
    assert all(issubclass(error, IFIMError) for error in (HeadError, ImageError, NetworkError))
    assert issubclass(IFIMError, ValueError)


def test_network_of_a_fixed_batch_size_is_refused_and_the_cure_works(image: Tensor) -> None:
    class Fixed(nn.Module):
        size = 3

        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(self.size, x[0].numel())[:, :4]

    network, images = Fixed().eval(), image.repeat_interleave(3, 0)[:3]
    with pytest.raises(NetworkError, match=r"not its first one alone.*its batch size is fixed.*x\.shape\[0\] or -1 in reshapes"):
        decompose(network, images)
    network.size = -1  # the cure
    decompose(network, images)
