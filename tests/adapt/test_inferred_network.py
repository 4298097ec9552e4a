"""Networks through MONAI's inferers: the windows' answers blended as MONAI blends them, F against a blend written down here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import Inferer, SaliencyInferer, SlidingWindowInferer
from torch import Tensor, nn

from monai_ifim import IFIMError, IFIMHandler, IFIMInferer, decompose
from monai_ifim.adapt.aggregates import AugmentedAverage, EnsembleAverage, PatchAverage
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.inferred_network import InferredNetwork
from monai_ifim.core import NetworkError
from monai_ifim.core.heads.volumes import VolumesHead

IMAGE = torch.randn(2, 1, 9, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
WINDOW = (6, 4)


def segmenter(seed: int = 3, labels: int = 3) -> nn.Module:
    """A small curved network that ends in an operation which needs its own output for its derivative."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, labels, 3, padding=1), nn.Tanh())
    for parameter in network.parameters():
        parameter.data *= 3
    return network.double().eval()


class Halved(Inferer):
    """An inferer of somebody's own."""

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return network(inputs, *args, **kwargs) / 2


def blended(network: nn.Module, image: Tensor) -> Tensor:
    """The mean of the windows' answers at each voxel; windows as MONAI places them for an overlap of a half."""
    total, count = torch.zeros(len(image), 3, 9, 7, dtype=image.dtype), torch.zeros(9, 7, dtype=image.dtype)
    for i, j in itertools.product((0, 3), (0, 2, 3)):
        place = (slice(i, i + WINDOW[0]), slice(j, j + WINDOW[1]))
        total = total + nn.functional.pad(network(image[:, :, place[0], place[1]]), (j, 7 - j - WINDOW[1], i, 9 - i - WINDOW[0]))
        count[place] += 1
    return total / count


def dense(answer: Callable[[Tensor], Tensor], image: Tensor, exclusive: bool = True) -> Tensor:
    """F of the volumes with a tolerance of two voxels, by autodiff of the volumes themselves, [D, D]."""

    def volumes(x: Tensor) -> Tensor:
        output = answer(x)
        shares = output.softmax(1) if exclusive else output.sigmoid()
        return shares.flatten(2).sum(2)[0] / 2

    rows: Tensor = torch.autograd.functional.jacobian(volumes, image[None])  # type: ignore[no-untyped-call]
    rows = rows.flatten(1)
    return rows.T @ rows


def assert_is(network: nn.Module, answer: Callable[[Tensor], Tensor], head: str = "volumes") -> None:
    d = decompose(network, IMAGE, head=head, volume_tolerance="2 voxels", energy=1.0, verify="always")
    assert d.record["verification"]["outcome"] == "agrees"
    for b, image in enumerate(IMAGE):
        fisher = dense(answer, image, head == "volumes")
        u = d.eigenvectors[b].flatten(1)
        torch.testing.assert_close(u.T @ (d.eigenvalues[b][:, None] * u), fisher, rtol=1e-7, atol=1e-10)


def test_windows_are_one_network_whose_fisher_information_is_that_of_the_blend() -> None:
    network, inferer = segmenter(), SlidingWindowInferer(WINDOW, sw_batch_size=3, overlap=0.5)
    windowed = InferredNetwork(network, inferer).eval()
    torch.testing.assert_close(windowed(IMAGE), blended(network, IMAGE))
    assert_is(windowed, lambda x: blended(network, x))


@pytest.mark.parametrize(
    "inferer",
    [
        SlidingWindowInferer((6, -1), 2, 0.25, mode="gaussian"),
        SlidingWindowInferer((12, 4), 1, 0.5, padding_mode="replicate"),
        SlidingWindowInferer(WINDOW, 2, 0.5, device="cpu", sw_device="cpu", cpu_thresh=1, buffer_steps=1),
        SlidingWindowInferer(5, 4, 0.0),
    ],
)
def test_the_answer_is_that_of_the_inferer(inferer: Inferer) -> None:
    network = segmenter()
    windowed = InferredNetwork(network, inferer).eval()
    expected = inferer(IMAGE, network)
    torch.testing.assert_close(windowed(IMAGE), expected)
    d = decompose(windowed, IMAGE, head="volumes", volume_tolerance="2 voxels", verify="always")
    assert d.record["verification"]["outcome"] == "agrees"
    torch.testing.assert_close(d.probabilities, VolumesHead().probabilities(expected))


def test_a_memory_budget_and_the_voxelwise_answer_go_through_windows() -> None:
    windowed = InferredNetwork(segmenter(), SlidingWindowInferer(WINDOW, 2, 0.5)).eval()
    plain = decompose(windowed, IMAGE, head="volumes", rank=2)
    bounded = decompose(windowed, IMAGE, head="volumes", rank=2, memory_budget="64MiB")
    torch.testing.assert_close(bounded.eigenvalues, plain.eigenvalues)
    d = decompose(windowed, IMAGE, head="voxelwise", rank=1, tolerance=1e-3, answer=1, verify="always")
    assert d.record["verification"]["outcome"] == "agrees"


def test_an_ensemble_of_segmentations_is_its_mean_of_softmaxes_or_sigmoids() -> None:
    members = [segmenter(seed) for seed in (1, 2, 3)]

    def mean(x: Tensor) -> Tensor:
        return (sum(member(x).softmax(1) for member in members) / 3).log()

    def mean_of_labels(x: Tensor) -> Tensor:
        return (sum(member(x).sigmoid() for member in members) / 3).logit()

    assert_is(EnsembleAverage(members, spatial=True).eval(), mean)
    assert_is(EnsembleAverage(members, mean="sigmoid", spatial=True).eval(), mean_of_labels, "volumes_bernoulli")
    with pytest.raises(NetworkError, match="give spatial=True"):
        decompose(EnsembleAverage(members).eval(), IMAGE, head="volumes")


def test_augmentations_of_a_segmentation_are_restored_before_the_mean() -> None:
    network, flips = segmenter(), (lambda x: x, lambda x: x.flip(-1), lambda x: x.flip(-2))

    def mean(x: Tensor) -> Tensor:
        answers = [network(x), network(x.flip(-1)).flip(-1), network(x.flip(-2)).flip(-2)]
        return (sum(answer.softmax(1) for answer in answers) / 3).log()

    assert_is(AugmentedAverage(network, flips, restorations=flips).eval(), mean)
    with pytest.raises(NetworkError, match="give restorations, one for each augmentation"):
        decompose(AugmentedAverage(network, flips).eval(), IMAGE, head="volumes")
    with pytest.raises(NetworkError, match="2 restorations for 3 augmentations"):
        AugmentedAverage(network, flips, restorations=flips[:2])
    with pytest.raises(NetworkError, match="InferredNetwork with MONAI's SlidingWindowInferer"):
        decompose(PatchAverage(network, WINDOW).eval(), IMAGE, head="volumes")


def test_an_evaluator_s_windows_are_decomposed_by_handler_and_inferer(tmp_path: Path) -> None:
    network, inferer = segmenter(), SlidingWindowInferer(WINDOW, 2, 0.5)
    expected = decompose(InferredNetwork(network, inferer), IMAGE, head="volumes", rank=2)
    found: dict[str, Tensor] = {}

    def evaluate(used: Inferer, handler: IFIMHandler | None) -> Any:
        loader = DataLoader(Dataset([{"image": image, "label": 0} for image in IMAGE]), batch_size=2)
        evaluator = SupervisedEvaluator(torch.device("cpu"), loader, network, inferer=used, decollate=False)
        if handler is not None:
            handler.attach(evaluator)
        evaluator.run()
        return evaluator.state.output

    by_handler = evaluate(inferer, IFIMHandler(head="volumes", rank=2))
    by_inferer = evaluate(IFIMInferer(head="volumes", rank=2, inferer=inferer), None)["pred"]
    for found in (by_handler, by_inferer):
        torch.testing.assert_close(found["ifim_eigenvalues"], expected.eigenvalues)
        torch.testing.assert_close(found["ifim_high"].as_tensor(), expected.high)  # type: ignore[attr-defined]
    torch.testing.assert_close(by_handler["pred"], expected.logits)
    with pytest.raises(IFIMError, match="the evaluator: its inferer is Halved.*name what to decompose with network="):
        evaluate(Halved(), IFIMHandler(head="volumes"))
    evaluate(Halved(), IFIMHandler(head="volumes", network=network))  # the cure
    with pytest.raises(IFIMError, match="SaliencyInferer.*pass a SlidingWindowInferer"):
        IFIMInferer(inferer=SaliencyInferer("GradCAM", "2"))


@pytest.fixture
def bundle(make_bundle: Callable[..., Path], tmp_path: Path) -> Callable[[dict[str, Any] | None], Path]:
    """A bundle whose network answers at every voxel, with an inferer."""

    def make(inferer: dict[str, Any] | None) -> Path:
        root = make_bundle(tmp_path / "bundle", dims=2)
        path = root / "configs" / "inference.json"
        content = json.loads(path.read_text())
        content["network_def"] = (
            "$torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.GELU(), torch.nn.Conv2d(4, 3, 1))"
        )
        content |= {} if inferer is None else {"inferer": inferer}
        path.write_text(json.dumps(content))
        network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 3, 1))
        torch.save(network.state_dict(), root / "models" / "model.pt")
        return root

    return make


def test_a_bundle_s_windows_are_its_network(bundle: Callable[[dict[str, Any] | None], Path]) -> None:
    root = bundle({"_target_": "SlidingWindowInferer", "roi_size": [6, 4], "overlap": 0.5, "device": "$torch.device('cpu')"})
    network = load_bundle(root).network
    assert isinstance(network, InferredNetwork)
    x = torch.rand(1, 1, 12, 10)
    torch.testing.assert_close(network(x), SlidingWindowInferer((6, 4), overlap=0.5)(x, network.ends_in))
    assert not torch.allclose(network(x), network.ends_in(x))


@pytest.mark.parametrize("inferer", [None, {"_target_": "SimpleInferer"}, {"_target_": "monai_ifim.adapt.IFIMInferer"}])
def test_a_bundle_that_calls_its_network_on_the_whole_image_has_it_as_it_is(
    bundle: Callable[[dict[str, Any] | None], Path], inferer: dict[str, Any] | None
) -> None:
    assert not isinstance(load_bundle(bundle(inferer)).network, InferredNetwork)


def test_a_bundle_with_another_inferer_is_refused_with_the_cure(bundle: Callable[[dict[str, Any] | None], Path]) -> None:
    root = bundle({"_target_": "SaliencyInferer", "cam_name": "GradCAM", "target_layers": "2"})
    with pytest.raises(IFIMError, match=r"bundle bundle: its inferer is SaliencyInferer.*make it a SimpleInferer"):
        load_bundle(root)
    path = root / "configs" / "inference.json"
    path.write_text(path.read_text().replace('"SaliencyInferer", "cam_name": "GradCAM", "target_layers": "2"', '"SimpleInferer"'))
    assert isinstance(load_bundle(root).network, nn.Sequential)  # the cure
