"""Each kernel gives autograd's gradient of the image in float64, and the rule takes the kernel that was measured as fastest."""

from __future__ import annotations

from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from monai_ifim.core.convolutions.choice import ChosenKernels, choosable, choose_kernel
from monai_ifim.core.convolutions.kernels import ConvolutionForm, Kernel, gradient_at_image, turned, work
from monai_ifim.core.convolutions.onednn import convolved, is_left_out

Case = tuple[tuple[int, ...], tuple[int, ...], ConvolutionForm]  # shapes of image and weights
ONE_TAP: dict[str, Case] = {
    "1d": ((2, 5, 11), (3, 5, 1), ConvolutionForm((1,), (0,), (1,))),
    "2d": ((1, 4, 7, 5), (6, 4, 1, 1), ConvolutionForm((1, 1), (0, 0), (1, 1))),
    "3d, strides": ((2, 3, 7, 6, 5), (4, 3, 1, 1, 1), ConvolutionForm((2, 3, 1), (0, 0, 0), (1, 1, 1))),
}
WITHOUT_STRIDES: dict[str, Case] = {
    "2d, one filter a channel": ((1, 6, 9, 8), (6, 1, 3, 5), ConvolutionForm((1, 1), (0, 2), (1, 1), 6)),
    "2d, groups": ((2, 4, 9, 8), (6, 2, 3, 2), ConvolutionForm((1, 1), (1, 0), (1, 2), 2)),
    "3d": ((1, 3, 5, 7, 6), (4, 3, 3, 3, 3), ConvolutionForm((1, 1, 1), (1, 1, 1), (1, 1, 1))),
    "3d, unequal": ((2, 2, 8, 9, 7), (5, 2, 3, 1, 2), ConvolutionForm((1, 1, 1), (2, 0, 1), (2, 1, 3))),
}
GENERAL: dict[str, Case] = WITHOUT_STRIDES | {
    "1d": ((2, 3, 11), (4, 3, 4), ConvolutionForm((2,), (1,), (1,))),
    "2d, stride": ((1, 1, 13, 10), (8, 1, 7, 7), ConvolutionForm((2, 2), (3, 3), (1, 1))),
    "2d, voxels beyond the last stride": ((1, 2, 12, 11), (8, 2, 3, 2), ConvolutionForm((4, 3), (0, 1), (1, 1))),
    "2d, padding beyond the reach": ((1, 2, 6, 5), (4, 2, 3, 2), ConvolutionForm((2, 1), (5, 2), (1, 1))),
    "3d, stride": ((1, 1, 9, 10, 7), (8, 1, 7, 7, 7), ConvolutionForm((2, 2, 2), (3, 3, 3), (1, 1, 1))),
    "3d, unequal": ((2, 2, 8, 9, 11), (6, 2, 3, 2, 4), ConvolutionForm((3, 1, 2), (2, 0, 3), (2, 3, 1))),
}
WITHOUT_GROUPS = {name: case for name, case in GENERAL.items() if case[2].groups == 1}


def _tensors(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Image, weights and a gradient of the output in float64."""
    image_shape, weight_shape, form = case
    generator = torch.Generator().manual_seed(3)
    shapes = (image_shape, weight_shape, (image_shape[0], weight_shape[0], *form.output_size(image_shape[2:], weight_shape[2:])))
    image, weight, gradient = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return image, weight, gradient


def _truth(case: Case) -> Tensor:
    image, weight, gradient = _tensors(case)
    form, leaf = case[2], image.requires_grad_(True)
    output = torch.convolution(
        leaf, weight, None, form.stride, form.padding, form.dilation, False, [0] * (image.ndim - 2), form.groups
    )
    assert output.shape == gradient.shape
    (found,) = torch.autograd.grad(output, leaf, gradient)
    return found


@pytest.mark.parametrize(
    ("kernel", "case"),
    [("autograd", case) for case in GENERAL.values()]
    + [("taps", case) for case in WITHOUT_GROUPS.values()]
    + [("turned", case) for case in WITHOUT_STRIDES.values()]
    + [("matrix product", case) for case in ONE_TAP.values()],
)
def test_every_kernel_gives_the_gradient_of_the_image(kernel: Kernel, case: Case) -> None:
    image, weight, gradient = (tensor.float() for tensor in _tensors(case))
    found = gradient_at_image(kernel, gradient, weight, tuple(image.shape[2:]), case[2])
    truth = _truth(case)
    assert found.shape == truth.shape
    assert found.is_contiguous()
    assert float((found.double() - truth).abs().max() / truth.abs().max()) < 2e-6


@pytest.mark.parametrize("kernel", ["taps", "turned"])
def test_gradients_in_another_layout_are_taken_too(kernel: Kernel) -> None:
    case = WITHOUT_STRIDES["3d"]
    image, weight, gradient = (tensor.float() for tensor in _tensors(case))
    last = gradient.to(memory_format=torch.channels_last_3d)
    found = gradient_at_image(kernel, last, weight, tuple(image.shape[2:]), case[2])
    assert float((found.double() - _truth(case)).abs().max()) < 1e-4


def test_work_is_what_the_sums_of_the_convolution_take() -> None:
    case = GENERAL["3d, unequal"]
    image, weight, gradient = _tensors(case)
    counted = gradient.numel() * weight[0].numel()  # a product for each voxel of the output and each weight of its filter
    assert work(len(image), weight, tuple(image.shape[2:]), case[2]) == counted
    assert torch.equal(turned(turned(weight, 1), 1), weight)


@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 3)])
def test_volumes_that_pytorch_keeps_from_onednn_are_convolved_there(stride: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(6)
    image, weight = torch.randn(1, 4, 7, 8, 6, generator=generator), torch.randn(6, 2, 3, 2, 3, generator=generator)
    for groups in (1, 2):  # PyTorch gives groups to oneDNN
        kernels = weight[:, : 4 // groups] if groups == 2 else weight.repeat(1, 2, 1, 1, 1)
        form = ConvolutionForm(stride, (1, 0, 2), (1, 2, 1), groups)
        truth = functional.conv3d(image.double(), kernels.double(), None, stride, (1, 0, 2), (1, 2, 1), groups)
        assert is_left_out(image, kernels, form) == (groups == 1)
        torch.testing.assert_close(convolved(image, kernels, form).double(), truth, rtol=0.0, atol=1e-5)


def _volume(inputs: int, outputs: int, kernel: int, stride: int, side: int, groups: int = 1, dims: int = 3) -> tuple[Tensor, ...]:
    return torch.empty(1, inputs, *[side] * dims), torch.empty(outputs, inputs // groups, *[kernel] * dims)


@pytest.mark.parametrize(
    ("layer", "kernel"),
    [
        ({"inputs": 1, "outputs": 64, "kernel": 7, "stride": 1, "side": 64}, "taps"),  # stem of a 3D ResNet
        ({"inputs": 1, "outputs": 64, "kernel": 7, "stride": 2, "side": 64}, "taps"),  # of a 3D DenseNet
        ({"inputs": 3, "outputs": 64, "kernel": 7, "stride": 2, "side": 224, "dims": 2}, "taps"),
        ({"inputs": 4, "outputs": 32, "kernel": 3, "stride": 1, "side": 64}, "taps"),
        ({"inputs": 1, "outputs": 32, "kernel": 3, "stride": 1, "side": 64}, "autograd"),  # 27 taps: a matrix product as it is
        ({"inputs": 4, "outputs": 32, "kernel": 3, "stride": 1, "side": 224, "dims": 2}, "autograd"),
        ({"inputs": 128, "outputs": 32, "kernel": 3, "stride": 1, "side": 8}, "turned"),
        ({"inputs": 128, "outputs": 32, "kernel": 3, "stride": 1, "side": 16}, "autograd"),  # oneDNN's own
        ({"inputs": 128, "outputs": 32, "kernel": 3, "stride": 1, "side": 2}, "autograd"),
        ({"inputs": 32, "outputs": 32, "kernel": 3, "stride": 1, "side": 24}, "turned"),
        ({"inputs": 32, "outputs": 64, "kernel": 3, "stride": 2, "side": 24}, "autograd"),
        ({"inputs": 5, "outputs": 5, "kernel": 3, "stride": 1, "side": 64}, "turned"),
        ({"inputs": 32, "outputs": 32, "kernel": 3, "stride": 1, "side": 30, "groups": 32}, "turned"),
        ({"inputs": 240, "outputs": 240, "kernel": 5, "stride": 1, "side": 28, "groups": 240, "dims": 2}, "turned"),
        ({"inputs": 256, "outputs": 256, "kernel": 3, "stride": 1, "side": 28, "groups": 32, "dims": 2}, "autograd"),
        ({"inputs": 64, "outputs": 128, "kernel": 1, "stride": 1, "side": 16}, "matrix product"),
        ({"inputs": 64, "outputs": 128, "kernel": 1, "stride": 2, "side": 32}, "matrix product"),
        ({"inputs": 8, "outputs": 32, "kernel": 1, "stride": 1, "side": 1, "dims": 2}, "autograd"),
    ],
)
def test_the_rule_takes_what_was_measured_as_the_fastest(layer: dict[str, int], kernel: Kernel) -> None:
    image, weight = _volume(**layer)
    dims = image.ndim - 2
    form = ConvolutionForm((layer["stride"],) * dims, (layer["kernel"] // 2,) * dims, (1,) * dims, layer.get("groups", 1))
    chosen = ChosenKernels()
    assert chosen.choose(image, weight, form) == choose_kernel(image, weight, form) == kernel
    chosen.choose(image, weight, form)
    assert chosen.described() == {kernel: 1}  # the same convolution again


@pytest.mark.parametrize(("padding", "kernel"), [(2, "turned"), (3, "autograd")])
def test_kernels_are_turned_only_where_the_padding_is_within_their_reach(padding: int, kernel: Kernel) -> None:
    image, weight = _volume(inputs=32, outputs=32, kernel=3, stride=1, side=20)
    assert choose_kernel(image, weight, ConvolutionForm((1, 1, 1), (padding, 1, 1), (1, 1, 1))) == kernel


def test_without_onednn_only_plain_pytorch_is_used() -> None:
    image, weight = _volume(inputs=32, outputs=32, kernel=3, stride=1, side=24)
    with torch.backends.mkldnn.flags(enabled=False):
        assert choose_kernel(image, weight, ConvolutionForm((1, 1, 1), (1, 1, 1), (1, 1, 1))) == "autograd"


def test_there_is_a_choice_for_plain_float32_tensors_only() -> None:
    image, weight = _volume(inputs=2, outputs=3, kernel=3, stride=1, side=4)
    assert choosable(image, weight)
    assert not choosable(image.double(), weight.double())
    assert not choosable(image.bfloat16(), weight.bfloat16())
    assert not choosable(image.to("meta"), weight.to("meta"))
    assert not choosable(image[0], weight)
    assert not choosable(image.to(memory_format=torch.channels_last_3d), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not choosable(image, weight)
    with mock.patch.object(torch.autograd.forward_ad, "_current_level", 0):
        assert not choosable(image, weight)
