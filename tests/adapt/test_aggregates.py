"""Predictors of several passes or several inputs: their Fisher information is that of the whole, written down by hand here."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.engines.utils import PrepareBatchExtraInput
from monai.inferers import SlidingWindowInferer
from monai.transforms import Lambdad
from torch import Tensor, nn

from monai_ifim import IFIMError, IFIMInferer, decompose
from monai_ifim.adapt.aggregates import AugmentedAverage, EnsembleAverage, PatchAverage
from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.check.network import check_bundle, check_network
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core.dense import dense_fisher, top_eigenpairs

SHAPE = (1, 7, 5)
CLASSES = 4
IMAGE = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def curved(seed: int, classes: int = CLASSES, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    """A small seeded network in float64, for images of any size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        convolution, pool = (nn.Conv2d, nn.AdaptiveAvgPool2d) if len(shape) == 3 else (nn.Conv3d, nn.AdaptiveAvgPool3d)
        layers = (convolution(shape[0], 4, 3, padding=1), nn.GELU(), pool(2), nn.Flatten())
        network = nn.Sequential(*layers, nn.Linear(4 * 2 ** (len(shape) - 1), classes))
    network[-1].weight.data *= 6
    return network.double().eval()


def fisher_of(probabilities: Callable[[Tensor], Tensor], image: Tensor, exclusive: bool = True) -> Tensor:
    """J^T M J from the probabilities p(x) themselves, [D, D]: M = diag(1/p), for labels diag(1 / (p (1 - p)))."""
    point = image[None]
    jacobian = torch.autograd.functional.jacobian(lambda x: probabilities(x)[0], point).flatten(1)  # type: ignore[no-untyped-call]
    p = probabilities(point)[0].detach()
    return jacobian.T @ torch.diag(1 / p if exclusive else 1 / (p * (1 - p))) @ jacobian


def assert_decomposes_to(network: Callable[..., Any], reference: Callable[[Tensor], Tensor], head: str, rank: int) -> None:
    """Eigenvalues, trace, diagonal and high part by `decompose` and by `IFIMInferer` are those of the dense matrices."""
    found = decompose(network, IMAGE, head=head, rank=rank)
    inferred = IFIMInferer(head=head, rank=rank)(IMAGE, network)
    for b, image in enumerate(IMAGE):
        fisher = reference(image)
        values, vectors = top_eigenpairs(fisher, rank)
        torch.testing.assert_close(found.eigenvalues[b], values, rtol=1e-8, atol=0)
        torch.testing.assert_close(found.trace[b], fisher.trace(), rtol=1e-8, atol=0)
        torch.testing.assert_close(found.sensitivity[b].flatten(), fisher.diagonal(), rtol=1e-8, atol=1e-14)
        high = (vectors.T @ (vectors @ image.flatten())).reshape(image.shape)
        torch.testing.assert_close(found.high[b], high, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(inferred["ifim_high"][b].as_tensor(), high, rtol=1e-6, atol=1e-8)


@pytest.fixture
def members() -> list[nn.Module]:
    return [curved(seed) for seed in (1, 2, 3)]


def test_an_ensemble_of_exclusive_classes_is_its_mean_of_softmaxes(members: list[nn.Module]) -> None:
    def mean(x: Tensor) -> Tensor:
        return sum(member(x).softmax(1) for member in members) / 3

    ensemble = EnsembleAverage(members).eval()
    torch.testing.assert_close(ensemble(IMAGE).exp(), mean(IMAGE))
    assert_decomposes_to(ensemble, lambda image: fisher_of(mean, image), "auto", 3)


def test_an_ensemble_of_labels_is_its_mean_of_sigmoids(members: list[nn.Module]) -> None:
    def mean(x: Tensor) -> Tensor:
        return sum(member(x).sigmoid() for member in members) / 3

    ensemble = EnsembleAverage(members, mean="sigmoid").eval()
    assert_decomposes_to(ensemble, lambda image: fisher_of(mean, image, exclusive=False), "bernoulli", 4)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Sigmoid()], ids=["softmax", "sigmoid"])
def test_members_that_return_probabilities_are_averaged_as_they_are(last: nn.Module, members: list[nn.Module]) -> None:
    whole = [nn.Sequential(member, last) for member in members]
    exclusive = isinstance(last, nn.Softmax)

    def mean(x: Tensor) -> Tensor:
        return sum(member(x) for member in whole) / 3

    ensemble = EnsembleAverage(whole, mean="output").eval()
    assert_decomposes_to(ensemble, lambda image: fisher_of(mean, image, exclusive), "probabilities", 3 if exclusive else 4)
    with pytest.raises(IFIMError, match="head='probabilities'"):
        decompose(ensemble, IMAGE)
    with pytest.raises(IFIMError, match="head='probabilities'"):
        decompose(mean, IMAGE)  # a plain callable that hides its sigmoids behind a sum


def test_a_saturated_ensemble_keeps_its_digits_in_single_precision() -> None:
    members = [nn.Sequential(nn.Flatten(), nn.Linear(35, CLASSES)).double().eval() for _ in range(2)]
    generator = torch.Generator().manual_seed(8)
    for member in members:
        member[1].weight.data = torch.randn(CLASSES, 35, generator=generator, dtype=torch.float64) * 0.2
        member[1].bias.data = torch.tensor([0.0, 45.0, -3.0, 6.0], dtype=torch.float64)

    def mean(x: Tensor) -> Tensor:
        return sum(member(x).softmax(1) for member in members) / 2

    truth = [top_eigenpairs(fisher_of(mean, image), 1)[0] for image in IMAGE]
    found = decompose(EnsembleAverage([member.float() for member in members]).eval(), IMAGE.float(), rank=1)
    assert float(found.eigenvalues.max()) < 1e-14
    torch.testing.assert_close(found.eigenvalues, torch.stack(truth), rtol=1e-4, atol=0)


def test_test_time_augmentation_is_the_mean_over_its_views(members: list[nn.Module]) -> None:
    def mean(x: Tensor) -> Tensor:
        views = (x, x.flip(-1), x.transpose(-1, -2))
        return sum(members[0](view).softmax(1) for view in views) / 3

    augmentations = [lambda x: x, lambda x: x.flip(-1), lambda x: x.transpose(-1, -2)]
    assert_decomposes_to(AugmentedAverage(members[0], augmentations).eval(), lambda image: fisher_of(mean, image), "auto", 3)


def windows(size: Sequence[int], roi: Sequence[int], step: Sequence[int]) -> list[tuple[slice, ...]]:
    """Windows from 0 on in steps, the last one moved back to end with the image."""
    starts = [
        sorted({min(start, whole - edge) for start in range(0, whole - edge + stride, stride)})
        for whole, edge, stride in zip(size, roi, step, strict=True)
    ]
    return [tuple(slice(a, a + edge) for a, edge in zip(corner, roi, strict=True)) for corner in itertools.product(*starts)]


def linear_in_windows(places: list[tuple[slice, ...]], weight: Tensor) -> Tensor:
    """Matrix [C, D] of the mean over windows of `weight` [C, *roi] times the window."""
    rows = torch.zeros(weight.shape[0], *SHAPE[1:], dtype=torch.float64)
    for place in places:
        rows[(slice(None), *place)] += weight / len(places)
    return rows.flatten(1)


@pytest.mark.parametrize("recompute", [False, True])
def test_mean_logits_of_windows_of_a_linear_network_are_one_matrix(recompute: bool) -> None:
    roi = (4, 3)
    weight = torch.randn(CLASSES, *roi, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    layer = nn.Linear(12, CLASSES, bias=False).double()
    layer.weight.data = weight.flatten(1)
    network = nn.Sequential(nn.Flatten(), layer)
    matrix = linear_in_windows(windows(SHAPE[1:], roi, (2, 1)), weight)

    def fisher(image: Tensor) -> Tensor:
        p = (matrix @ image.flatten()).softmax(0)
        return matrix.T @ (torch.diag(p) - torch.outer(p, p)) @ matrix

    average = PatchAverage(network, roi, overlap=0.5, mean="output", recompute=recompute).eval()
    assert_decomposes_to(average, fisher, "categorical", 3)


@pytest.mark.parametrize("recompute", [False, True])
def test_mean_probability_of_windows_of_a_volume(recompute: bool) -> None:
    volume = torch.randn(1, 2, 6, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    network = curved(4, 3, (2, 6, 5, 4))
    places = windows((6, 5, 4), (4, 3, 4), (3, 2, 4))

    def mean(x: Tensor) -> Tensor:
        return sum(network(x[(slice(None), slice(None), *place)]).softmax(1) for place in places) / len(places)

    found = decompose(PatchAverage(network, (4, 3, -1), recompute=recompute).eval(), volume, rank=2)
    fisher = fisher_of(mean, volume[0])
    torch.testing.assert_close(found.eigenvalues[0], top_eigenpairs(fisher, 2)[0], rtol=1e-8, atol=0)
    torch.testing.assert_close(found.sensitivity[0].flatten(), fisher.diagonal(), rtol=1e-8, atol=1e-14)


def test_a_window_larger_than_the_image_is_padded_as_monai_pads(members: list[nn.Module]) -> None:
    def padded(x: Tensor) -> Tensor:
        return members[0](nn.functional.pad(x, (2, 2, 1, 1))).softmax(1)

    assert_decomposes_to(PatchAverage(members[0], 9).eval(), lambda image: fisher_of(padded, image), "auto", 3)


class Spread(nn.Module):
    """Gives every voxel of a window the window's answer, as a sliding window inferer wants it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)[:, :, None, None].expand(-1, -1, *x.shape[2:]).contiguous()


def test_monais_sliding_window_inferer_may_be_part_of_the_predictor(members: list[nn.Module]) -> None:
    inferer = SlidingWindowInferer((4, 3), sw_batch_size=3, overlap=0.25)
    spread = Spread(members[0])
    places = windows(SHAPE[1:], (4, 3), (3, 2))

    def by_hand(x: Tensor) -> Tensor:
        total, count = torch.zeros(1, CLASSES, *SHAPE[1:], dtype=torch.float64), torch.zeros(SHAPE[1:], dtype=torch.float64)
        for place in places:
            cover = torch.zeros(SHAPE[1:], dtype=torch.float64)
            cover[place] = 1
            total, count = total + members[0](x[(..., *place)])[:, :, None, None] * cover, count + cover
        return (total / count).mean((2, 3)).softmax(1)

    assert_decomposes_to(lambda x: inferer(x, spread).mean((2, 3)), lambda image: fisher_of(by_hand, image), "auto", 3)


def test_sigmoids_stitched_by_a_sliding_window_inferer_are_not_taken_for_logits(members: list[nn.Module]) -> None:
    inferer, spread = SlidingWindowInferer((4, 3), overlap=0.25), Spread(nn.Sequential(members[0], nn.Sigmoid()))
    with pytest.raises(IFIMError, match="head='probabilities'"):
        decompose(lambda x: inferer(x, spread).mean((2, 3)), IMAGE)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda n: EnsembleAverage([]), "the ensemble has no networks"),
        (lambda n: EnsembleAverage([n], mean="median"), "choose one of 'softmax'"),
        (lambda n: AugmentedAverage(n, []), "there are no augmentations"),
        (lambda n: PatchAverage(n, 4, overlap=1.0), r"overlap 1\.0"),
        (lambda n: PatchAverage(n, (4, 3, 2))(IMAGE), "has 3 axes and the image 2"),
        (lambda n: EnsembleAverage([nn.Sequential(n, nn.Softmax(1))])(IMAGE), "mean='output' for probabilities"),
        (lambda n: EnsembleAverage([nn.Sequential(n, nn.Sigmoid())], "sigmoid")(IMAGE), "mean='output' for probabilities"),
        (lambda n: EnsembleAverage([curved(1, 1)])(IMAGE), "mean='sigmoid' for one logit"),
        (lambda n: EnsembleAverage([n[:1]])(IMAGE), "one answer a voxel"),
    ],
)
def test_what_cannot_be_averaged_is_refused_with_the_cure(make: Callable[[Any], Any], reason: str) -> None:
    with pytest.raises(IFIMError, match=reason):
        make(curved(1))


def test_members_may_return_tuples_and_take_further_inputs(members: list[nn.Module]) -> None:
    class Gained(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
            return x, gain[:, None] * self.network(x)

    gain = torch.tensor([0.5, 2.0], dtype=torch.float64)
    ensemble = EnsembleAverage([Gained(member) for member in members], output_key=1).eval()
    found = decompose(ensemble, IMAGE, rank=3, network_args=[gain])
    for b, image in enumerate(IMAGE):

        def mean(x: Tensor, b: int = b) -> Tensor:
            return sum((gain[b] * member(x)).softmax(1) for member in members) / 3

        torch.testing.assert_close(found.eigenvalues[b], top_eigenpairs(fisher_of(mean, image), 3)[0], rtol=1e-8, atol=0)


def aggregated(root: Path, target: str, **settings: Any) -> Path:
    """The bundle at `root` with its network inside a predictor of several passes."""
    path = root / "configs" / "inference.json"
    content = json.loads(path.read_text())
    entry = {"_target_": f"monai_ifim.adapt.aggregates.{target}", **settings}
    path.write_text(json.dumps(content | {"single": content["network_def"], "network_def": entry}))
    return root


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("PatchAverage", {"network": "@single", "roi_size": [6, 5, 7], "overlap": 0.5}),
        ("AugmentedAverage", {"network": "@single", "augmentations": ["$lambda x: x", "$lambda x: x.flip(-1)"]}),
    ],
)
def test_a_bundle_puts_its_single_checkpoint_into_a_predictor_of_several_passes(
    target: str, settings: dict[str, Any], tmp_path: Path, make_bundle: Callable[..., Path], make_network: Callable[..., Any]
) -> None:
    bundle = load_bundle(aggregated(make_bundle(tmp_path / "tiny"), target, **settings))
    x, single = torch.rand(1, 1, 9, 8, 7), make_network()
    if target == "PatchAverage":
        views = [x[(..., *place)] for place in windows((9, 8, 7), (6, 5, 7), (3, 2, 7))]
    else:
        views = [x, x.flip(-1)]
    torch.testing.assert_close(bundle.network(x).exp(), sum(single(view).softmax(1) for view in views) / len(views))
    assert check_bundle(bundle, None, CaseSettings()).fit
    fisher = dense_fisher(bundle.network, x)
    torch.testing.assert_close(
        decompose(bundle.network, x, rank=2).eigenvalues[0], top_eigenpairs(fisher, 2)[0], rtol=1e-4, atol=0
    )


def test_a_bundle_holds_an_ensemble(tmp_path: Path, make_bundle: Callable[..., Path], make_network: Callable[..., Any]) -> None:
    root = aggregated(make_bundle(tmp_path / "tiny"), "EnsembleAverage", networks=["%single", "%single"])
    members = [make_network(), make_network()]
    members[1][-1].weight.data *= -2
    torch.save(EnsembleAverage(members).state_dict(), root / "models" / "model.pt")
    x = torch.rand(1, 1, 9, 8, 7)
    torch.testing.assert_close(load_bundle(root).network(x).exp(), (members[0](x).softmax(1) + members[1](x).softmax(1)) / 2)


class WithTable(nn.Module):
    """Image features and a row of numbers, joined before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = curved(6, 5)
        self.last = nn.Linear(8, CLASSES).double()

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return self.last(torch.cat([self.features(image).tanh(), table], dim=1))


def test_image_and_table_in_an_evaluator_differentiate_the_image_alone() -> None:
    network = WithTable().eval()
    tables = torch.randn(2, 3, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    items = [{"image": image, "table": table} for image, table in zip(IMAGE, tables, strict=True)]
    seen: list[Any] = []

    def keep(value: Any) -> Any:
        seen.append(value)
        return value

    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=network,
        prepare_batch=PrepareBatchExtraInput("table"),
        inferer=IFIMInferer(rank=3),
        postprocessing=Lambdad("pred", keep),
    ).run()
    for image, table, item in zip(IMAGE, tables, seen, strict=True):
        fisher = fisher_of(lambda x, table=table: network(x, table[None]).softmax(1), image)
        torch.testing.assert_close(item["ifim_eigenvalues"], top_eigenpairs(fisher, 3)[0], rtol=1e-8, atol=0)
    assert check_network(network, IMAGE[:1], CaseSettings(), args=[tables[:1]]).fit


def test_an_average_s_own_checkpoint_is_loaded_as_well_as_that_of_its_network(make_network: Callable[..., Any]) -> None:
    network, x = make_network(), torch.rand(2, 1, 9, 8, 7)
    network[-1].weight.data *= -2
    wanted = PatchAverage(network, 6)
    for state in (wanted.state_dict(), network.state_dict()):
        average = PatchAverage(make_network(), 6).eval()
        assert not torch.allclose(average(x), wanted(x))
        average.load_state_dict(state)
        torch.testing.assert_close(average(x), wanted(x), rtol=0, atol=0)
