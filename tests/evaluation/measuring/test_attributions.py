"""Attribution maps against closed forms, and on MONAI's networks; whatever is asked, the network is left as it was."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import DenseNet121, SEResNet50, ViT
from torch import Tensor, nn

from monai_ifim.core import IFIMError, TrainingModeWarning
from monai_ifim.evaluation.measuring.attributions import ATTRIBUTIONS, attribute, last_spatial_layer

Array = npt.NDArray[np.float64]
SHAPES = {"2d": (1, 19, 13), "2d-3channels": (3, 17, 21), "3d": (1, 17, 9, 5), "3d-2channels": (2, 5, 19, 9)}
EACH_METHOD = pytest.mark.parametrize("method", ATTRIBUTIONS)


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    """[channel, *spatial], odd and unequal."""
    chosen: tuple[int, ...] = request.param
    return chosen


def normal(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().eval()


def linear_classifier(shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """z = W x + b in float64."""
    layer = nn.Linear(math.prod(shape), outputs, dtype=torch.float64)
    layer.weight.data = normal((outputs, math.prod(shape)), 3)
    layer.bias.data = normal((outputs,), 4)
    return nn.Sequential(nn.Flatten(), layer).eval()


def small_cnn(channels: int, axes: int, inplace: bool = False, classes: int = 3) -> nn.Sequential:
    """ReLU first of all, on the image itself, and after every convolution."""
    convolution, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if axes == 2 else (nn.Conv3d, nn.AdaptiveAvgPool3d)

    def make() -> nn.Sequential:
        return nn.Sequential(
            nn.ReLU(inplace),
            convolution(channels, 5, 3, padding=1),
            nn.ReLU(inplace),
            convolution(5, 4, 3, stride=2),
            nn.ReLU(inplace),
            pool(1),
            nn.Flatten(),
            nn.Linear(4, classes),
        ).double()

    made = seeded(make)
    assert isinstance(made, nn.Sequential)
    made[7].weight.data[-1].abs_()  # so that Grad-CAM of the last class is positive somewhere
    return made


def windows_of(size: int, axes: int) -> list[slice]:
    """Windows of an eighth of the axis (in a volume a quarter), two entries at least, half a window apart, up to the end."""
    window = max(2, round(size / {2: 8, 3: 4}[axes]))
    starts = [0]
    while starts[-1] + window < size:
        starts.append(starts[-1] + window // 2)
    return [slice(start, min(start + window, size)) for start in starts]


def test_integrated_gradients_of_a_linear_score_are_weight_times_entry(shape: tuple[int, ...]) -> None:
    network, image = linear_classifier(shape, 4), normal((1, *shape), 0)
    for target in range(4):
        found = attribute(network, image, target, "integrated_gradients", network)
        expected = network[1].weight.detach()[target].reshape(shape) * image[0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # Captum holds its steps in single precision


def test_saliency_of_a_linear_score_is_the_absolute_weight(shape: tuple[int, ...]) -> None:
    network, image = linear_classifier(shape, 4), normal((1, *shape), 0)
    for target in range(4):
        found = attribute(network, image, target, "saliency", network)
        torch.testing.assert_close(found, network[1].weight.detach()[target].reshape(shape).abs(), rtol=1e-14, atol=0)


def test_occlusion_of_a_linear_score_is_the_mean_difference_of_the_windows_over_an_entry(shape: tuple[int, ...]) -> None:
    """Every window of all channels is set to the image's mean: the score falls by the sum of w (x - mean) inside."""
    network, image = linear_classifier(shape, 3), normal((1, *shape), 0) + 2
    x, w = image[0].numpy(), network[1].weight.detach()[2].reshape(shape).numpy()
    contribution = w * (x - x.mean())
    total, windows = np.zeros(shape), np.zeros(shape)
    for corner in itertools.product(*(windows_of(size, len(shape) - 1) for size in shape[1:])):
        where = (slice(None), *corner)
        total[where] += contribution[where].sum()
        windows[where] += 1
    found = attribute(network, image, 2, "occlusion", network)
    np.testing.assert_allclose(found.numpy(), total / windows, rtol=1e-5, atol=1e-6)  # Captum sums in single precision


def interpolated(coarse: Array, sizes: tuple[int, ...]) -> Array:
    """Linear interpolation along every axis in turn, between the centres of entries, constant beyond the outermost."""
    for axis, size in enumerate(sizes):
        old = coarse.shape[axis]
        centres = (np.arange(size) + 0.5) * old / size - 0.5
        coarse = np.apply_along_axis(lambda line, at=centres, n=old: np.interp(at, np.arange(n), line), axis, coarse)
    return coarse


def test_gradcam_of_a_pooled_convolution_is_its_weighted_feature_map(shape: tuple[int, ...]) -> None:
    """Of the score sum_k v_k mean(A_k) the gradient to A_k is v_k / N everywhere; Grad-CAM = max(0, sum_k v_k A_k / N)."""
    network, image = small_cnn(shape[0], len(shape) - 1), normal((1, *shape), 0)
    features = network[:5](image)[0].detach().numpy()
    for target in range(3):
        v = network[7].weight.detach()[target].numpy()
        coarse = np.maximum(np.einsum("k,k...->...", v, features) / features[0].size, 0)
        found = attribute(network, image, target, "gradcam", network)
        expected = np.broadcast_to(interpolated(coarse, shape[1:]), shape)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-14)
    assert coarse.any()


def test_integrated_gradients_add_up_to_the_change_of_the_score(shape: tuple[int, ...]) -> None:
    network = nn.Sequential(linear_classifier(shape, 4), nn.Tanh(), nn.Linear(4, 3, dtype=torch.float64)).eval()
    network[2].weight.data, network[2].bias.data = normal((3, 4), 5), normal((3,), 6)
    image = normal((1, *shape), 0) / 20
    with torch.no_grad():
        change = network(image)[0] - network(torch.zeros_like(image))[0]
    for target in range(3):
        found = attribute(network, image, target, "integrated_gradients", network)
        assert float(found.sum()) == pytest.approx(float(change[target]), abs=1e-5)


@EACH_METHOD
@pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
def test_relu_in_place_changes_no_attribution_nor_the_image(shape: tuple[int, ...], method: str, frozen: bool) -> None:
    plain, inplace = (small_cnn(shape[0], len(shape) - 1, inplace=flag).requires_grad_(not frozen) for flag in (False, True))
    image = normal((1, *shape), 0)
    kept = image.clone()
    first, second = (attribute(network, image, 2, method, network) for network in (plain, inplace))
    assert torch.equal(first, second)
    assert torch.equal(image, kept)
    assert bool(first.any())


@EACH_METHOD
def test_one_output_is_the_score_of_class_one_and_its_negative_that_of_class_zero(method: str) -> None:
    """What one output z says, the two outputs (-z, z) say too."""
    one = small_cnn(1, 2, classes=1)
    two = small_cnn(1, 2, classes=2)
    two.load_state_dict(
        {**one.state_dict(), **{n: torch.cat([-p, p]) for n, p in one.state_dict().items() if n.startswith("7.")}}
    )
    image = normal((1, 1, 19, 13), 0)
    for target in (0, 1):
        expected = attribute(two, image, target, method, two)
        torch.testing.assert_close(attribute(one, image, target, method, one), expected)


def monai_network(name: str, axes: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of three classes with an image shape [channel, *spatial] that it takes, odd where it can be."""
    shape = (1, 65, 39) if axes == 2 else (1, 29, 31, 33)
    if name == "DenseNet121":
        return seeded(lambda: DenseNet121(spatial_dims=axes, in_channels=1, out_channels=3)), shape
    if name == "SEResNet50":
        return seeded(lambda: SEResNet50(spatial_dims=axes, in_channels=1, num_classes=3)), shape[:-1] + (19,)
    size, patch = ((15, 21), (5, 7)) if axes == 2 else ((15, 21, 9), (5, 7, 3))
    return seeded(
        lambda: ViT(
            in_channels=1, img_size=size, patch_size=patch, hidden_size=12, mlp_dim=16, num_layers=2, num_heads=3, num_classes=3,
            classification=True, proj_type=name.partition("-")[2], spatial_dims=axes, post_activation="",
        )
    ), (1, *size)  # fmt: skip


def logits_of(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """MONAI's ViT returns (logits, hidden states)."""

    def predict(images: Tensor) -> Tensor:
        output = network(images)
        logits: Tensor = output[0] if isinstance(output, tuple) else output
        return logits

    return predict


def state_of(network: nn.Module) -> list[object]:
    """All that must be left as found: modes, parameters, buffers, gradients, whether they are wanted, and hooks."""
    modules = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in network.modules()]
    parameters = [(p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in network.parameters()]
    return [modules, parameters, [t.sum().item() for t in network.state_dict().values()]]


# Occlusion takes hundreds of passes over a volume: for convolutional networks the small ones above stand in.
ON_MONAI = [
    (name, axes, method)
    for name in ("DenseNet121", "SEResNet50", "ViT-conv", "ViT-perceptron")
    for axes in (2, 3)
    for method in ATTRIBUTIONS
    if not (method == "occlusion" and axes == 3 and not name.startswith("ViT"))
    if not (method == "gradcam" and name == "ViT-perceptron")
]


@pytest.mark.soak
@pytest.mark.parametrize(("name", "axes", "method"), ON_MONAI)
def test_monai_networks_get_finite_attributions_and_stay_as_they_were(name: str, axes: int, method: str) -> None:
    network, shape = monai_network(name, axes)
    first = next(network.parameters())
    first.grad, first.requires_grad = torch.ones_like(first), False
    before = state_of(network)
    found = attribute(network, normal((1, *shape), 0).float(), 1, method, logits_of(network))
    assert found.shape == shape
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert bool(torch.isfinite(found).all())
    assert float(found.std()) > 0
    assert state_of(network) == before


@pytest.mark.parametrize(
    ("name", "axes", "layer"),
    [
        ("DenseNet121", 2, "class_layers.relu"),
        ("DenseNet121", 3, "features.transition3.conv"),  # one position is left after it, and after the next
        ("SEResNet50", 2, "layer4"),
        ("SEResNet50", 3, "layer3"),
        ("ViT-conv", 2, "patch_embedding.patch_embeddings"),
        ("ViT-conv", 3, "patch_embedding.patch_embeddings"),
    ],
)
def test_gradcam_takes_the_last_feature_map_with_several_positions(name: str, axes: int, layer: str) -> None:
    network, shape = monai_network(name, axes)
    found, module = last_spatial_layer(network, normal((1, *shape), 0).float(), logits_of(network))
    assert found == layer
    assert module is network.get_submodule(layer)


@pytest.mark.parametrize("axes", [2, 3])
def test_gradcam_is_refused_where_no_layer_gives_a_feature_map(axes: int) -> None:
    """In 2D a transformer's attention weights [1, head, token, token] look like one, and are none."""
    network, shape = monai_network("ViT-perceptron", axes)
    with pytest.raises(IFIMError, match="leave Grad-CAM out"):
        attribute(network, normal((1, *shape), 0).float(), 1, "gradcam", logits_of(network))


def test_a_layer_that_runs_again_without_a_feature_map_is_passed_over() -> None:
    """Captum keeps the last run of a layer, here the one on the pooled features."""

    class SharedActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.activation = nn.Conv2d(1, 4, 3), nn.ReLU()
            self.hidden, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            pooled = self.activation(self.convolution(x)).mean((2, 3))
            out: Tensor = self.last(self.activation(self.hidden(pooled)))
            return out

    network, image = seeded(SharedActivation), normal((1, 1, 9, 7), 0).float()
    assert last_spatial_layer(network, image, network)[0] == "convolution"
    assert attribute(network, image, 0, "gradcam", network).shape == (1, 9, 7)


@EACH_METHOD
def test_a_network_in_train_mode_is_evaluated_in_eval_mode_and_back_in_its_own(method: str) -> None:
    network = nn.Sequential(*small_cnn(1, 2)[:3], nn.BatchNorm2d(5).double(), *small_cnn(1, 2)[3:], nn.Dropout(0.5))
    network[4].weight.requires_grad = False
    image = normal((1, 1, 19, 13), 0)
    expected = attribute(network.eval(), image, 1, method, network)
    network.train()
    network[4].eval()
    before = state_of(network)
    with pytest.warns(TrainingModeWarning):
        found = attribute(network, image, 1, method, network)
    assert torch.equal(found, expected)
    assert state_of(network) == before


@EACH_METHOD
def test_callers_may_have_switched_gradients_off(method: str) -> None:
    network, image = small_cnn(1, 2), normal((1, 1, 19, 13), 0)
    expected = attribute(network, image, 1, method, network)
    with torch.no_grad():
        assert torch.equal(attribute(network, image, 1, method, network), expected)
    with torch.inference_mode():
        assert torch.equal(attribute(network, image.clone(), 1, method, network), expected)


@EACH_METHOD
def test_an_attribution_is_a_plain_tensor_of_its_own(method: str) -> None:
    """MONAI's MetaTensor would carry the image's operations along, an expanded view its channels' shared memory."""
    network, image = small_cnn(3, 2), MetaTensor(normal((1, 3, 19, 13), 0))
    found = attribute(network, image, 1, method, network)
    assert type(found) is Tensor
    found[0] += 1
    assert not torch.equal(found[0], found[1])


@EACH_METHOD
def test_hooks_are_taken_off_after_a_failure(method: str) -> None:
    network, image = small_cnn(1, 2), normal((1, 1, 19, 13), 0)
    before = state_of(network)
    calls: list[int] = []

    def fail(images: Tensor) -> Tensor:
        calls.append(images.shape[0])
        if len(calls) > 1:
            raise ZeroDivisionError
        return network(images)

    with pytest.raises(ZeroDivisionError):
        attribute(network, image, 1, method, fail)
    assert state_of(network) == before


def test_a_short_axis_is_occluded_whole() -> None:
    shape = (1, 9, 1)
    network, image = linear_classifier(shape, 2), normal((1, *shape), 0)
    found = attribute(network, image, 0, "occlusion", network)
    contribution = (network[1].weight.detach()[0] * (image - image.mean()).flatten()).numpy()
    pairs = contribution[:-1] + contribution[1:]
    expected = [pairs[0], *(pairs[:-1] + pairs[1:]) / 2, pairs[-1]]
    np.testing.assert_allclose(found.flatten().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_unknown_methods_and_targets_and_batches_are_refused() -> None:
    network, image = linear_classifier((1, 7, 5), 3), normal((1, 1, 7, 5), 0)
    with pytest.raises(IFIMError, match="unknown attribution"):
        attribute(network, image, 0, "lime", network)
    for target in (-1, 3):
        with pytest.raises(IFIMError, match="none of the 3 classes"):
            attribute(network, image, target, "saliency", network)
    with pytest.raises(IFIMError, match="one image at a time"):
        attribute(network, image.repeat(2, 1, 1, 1), 0, "saliency", network)


def test_attributions_that_are_not_finite_are_refused() -> None:
    network, image = linear_classifier((1, 7, 5), 3), normal((1, 1, 7, 5), 0)
    network[1].weight.data[0, 3] = torch.inf
    with pytest.raises(IFIMError, match="NaN or infinite"):
        attribute(network, image, 0, "saliency", network)
