"""What real users bring: cut gradients, hidden sigmoids, extreme gaps, compiled networks, numbers from configs."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from monai_ifim.adapt import IFIMDecompose
from monai_ifim.core import GaussianHead, HeadError, IFIMError, NetworkError, decompose
from monai_ifim.core.dense import dense_fisher
from monai_ifim.core.settings import selection


def linear(classes: int, bias: list[float] | None = None, size: int = 63) -> nn.Sequential:
    torch.manual_seed(3)
    layer = nn.Linear(size, classes)
    if bias is not None:
        layer.bias.data[:] = torch.tensor(bias)
    return nn.Sequential(nn.Flatten(), layer).double().eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 1, 9, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class FrozenBackbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.top = nn.Conv2d(1, 4, 3).double(), nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.backbone(x).tanh().mean((2, 3))
        return self.top(features)


def test_gradient_cut_below_a_trainable_layer_is_refused(image: Tensor) -> None:
    with pytest.raises(NetworkError, match="no gradient flows"):
        decompose(FrozenBackbone().eval(), image)


def test_one_confident_label_does_not_make_a_sigmoid_a_softmax(image: Tensor) -> None:
    logits = linear(3, [7.5, -12.0, -13.0])
    logits[1].weight.data *= 0.1
    probabilities = nn.Sequential(*logits, nn.Sigmoid()).eval()
    truth = torch.trace(dense_fisher(logits, image, "bernoulli"))
    found = decompose(probabilities, image, head="probabilities")
    assert found.record["head"] == "bernoulli_probabilities"
    torch.testing.assert_close(found.trace[0], truth, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gap", [740.0, 800.0, 1400.0, 1600.0])
def test_gaps_beyond_float64_leave_nothing_undefined(image: Tensor, gap: float) -> None:
    found = decompose(linear(4, [0.0, gap, 0.0, 0.0]), image, energy=1.0)
    norms = found.eigenvectors.flatten(2).norm(dim=2)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    torch.testing.assert_close(found.high + found.low, image)
    assert int(found.rank) == (3 if gap == 740.0 else 0)


def test_half_precision_keeps_rows_that_are_far_from_dependent() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 400)
    network = linear(3, [6.0, 0.0, 0.0], size=400).float()
    network[1].weight.data = 0.05 * torch.stack([0 * first, first, 0.9 * first + 0.19**0.5 * second])
    image = 0.1 * torch.randn(1, 1, 20, 20)
    half = decompose(network.bfloat16(), image.bfloat16(), energy=1.0)
    assert half.rank.tolist() == [2]
    torch.testing.assert_close(half.energy, torch.ones(1, dtype=torch.float64))


def test_compiled_network_is_taken_without_its_compiler(image: Tensor) -> None:
    network = linear(3)
    compiled = torch.compile(network, backend="aot_eager", dynamic=True)
    for batch in (image, torch.cat([image, image * 0.5])):
        torch.testing.assert_close(decompose(compiled, batch).trace, decompose(network, batch).trace)


def test_sigmoid_that_autograd_cannot_see_is_not_taken_for_logits(image: Tensor) -> None:
    network = linear(3)
    with pytest.raises(HeadError, match="probabilities"):
        decompose(lambda x: network(x).sigmoid().clamp(1e-6, 1 - 1e-6), image)


def test_logits_are_seldom_taken_for_probabilities() -> None:
    # Rows that sum to one only roughly are logits.
    network = nn.Sequential(nn.Flatten(), nn.Linear(63, 2)).eval()
    nn.init.zeros_(network[1].weight)
    network[1].bias.data[:] = torch.tensor([0.3004, 0.7])
    assert decompose(network, torch.rand(1, 1, 9, 7)).record["head"] == "categorical"


def test_numbers_from_configs_become_plain(image: Tensor) -> None:
    network = linear(4)
    assert selection(decompose(network, image, rank=np.int64(2)).record["settings"]) == {"rank": 2}
    made = IFIMDecompose(network, energy=np.float32(0.5))(image[0])
    assert made["ifim_rank"] == 1
    for wrong in ("0.9", 0.0, np.bool_(True)):
        with pytest.raises(IFIMError, match="energy"):
            decompose(network, image, energy=wrong)  # type: ignore[arg-type]


def test_argument_without_an_entry_for_every_image_goes_as_it_is(image: Tensor) -> None:
    network, weights = linear(4), torch.arange(1.0, 5.0, dtype=torch.float64)
    batch = torch.cat([image, 0.5 * image])
    found = decompose(lambda x, w: network(x) * w, batch, network_kwargs={"w": weights}, locality=True)
    assert bool((found.locality_radius[:, 0] > 0).all())


@pytest.mark.parametrize("sigma", [0.0, 1e-200, 1e200, float("inf"), float("nan")])
def test_sigma_out_of_range_is_refused(sigma: float) -> None:
    with pytest.raises(HeadError, match="sigma must be positive"):
        GaussianHead(sigma)


def test_bound_forward_is_evaluated_like_its_module(image: Tensor) -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(105, 3)).double().train()
    before = copy.deepcopy(network.state_dict())
    with pytest.warns(match="train mode"):
        found = decompose(network.forward, image)
    torch.testing.assert_close(found.trace, decompose(network.eval(), image).trace)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_layer_without_modes_left_in_train_mode_is_no_reason_to_warn(image: Tensor) -> None:
    network = linear(3)
    network[0].train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decompose(network, image)
    assert network[0].training


def test_exported_program_is_decomposed(image: Tensor) -> None:
    network = linear(3)
    exported = torch.export.export(network, (image,)).module()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.testing.assert_close(decompose(exported, image).trace, decompose(network, image).trace)


def test_lazy_layers_are_refused(image: Tensor) -> None:
    with pytest.raises(NetworkError, match="lazy layers"):
        decompose(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)).eval(), image.float())


def test_components_do_not_share_the_affine_of_the_image(image: Tensor) -> None:
    from monai.data import MetaTensor

    original = MetaTensor(image[0])
    made = IFIMDecompose(linear(3))(original)
    made["ifim_low"].affine[0, 0] = 7.0
    assert float(original.affine[0, 0]) == 1.0
