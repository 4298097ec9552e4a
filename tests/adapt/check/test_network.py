"""`check_network` on networks that keep the promises and on networks that break one each."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_ifim.adapt.bundle import load_bundle
from monai_ifim.adapt.check.findings import Finding, Listener, NetworkReport
from monai_ifim.adapt.check.network import MOST_PASSES, check_bundle, check_network
from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.core import decompose
from monai_ifim.core.answer import AnswerFacts

MakeNetwork = Callable[..., nn.Module]
IMAGE = torch.rand(1, 1, 7, 9, 8, generator=torch.Generator().manual_seed(3))


class Spoilt(nn.Module):
    """A good network with one thing done to its logits."""

    def __init__(self, backbone: nn.Module, spoil: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.backbone, self.spoil = backbone, spoil

    def forward(self, image: Tensor) -> Tensor:
        return self.spoil(self.backbone(image))


def check(network: nn.Module, head: str = "auto", names: tuple[str, ...] = ()) -> NetworkReport:
    return check_network(network, IMAGE, CaseSettings(head), AnswerFacts(class_names=names))


def failed(report: NetworkReport) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.findings if not finding.passed}


def test_a_good_network_passes_every_look(make_network: MakeNetwork) -> None:
    report = check(make_network(), names=("a", "b", "c"))
    assert report.fit
    found = {finding.name: finding.detail for finding in report.findings}
    assert list(found) == ["output", "class names", "determinism", "independence", "decomposition", "cost", "derivatives"]
    assert "3 output(s)" in found["output"]
    assert "3 class names for 3 outputs: a, b, c" in found["class names"]
    assert "head categorical, method exact, 2 product(s) an image" in found["decomposition"]
    assert (report.outputs, report.head) == (3, "categorical")


def test_the_output_that_was_read_is_named(make_network: MakeNetwork) -> None:
    several = Spoilt(make_network(), lambda z: {"features": z.square(), "logits": z}).eval()  # type: ignore[arg-type,return-value]
    report = check(several)
    assert report.fit
    assert "3 output(s) for an input of (1, 7, 9, 8), read from 'logits' of what" in report.findings[0].detail


def test_a_cut_gradient_fails_the_check(make_network: MakeNetwork) -> None:
    network = Spoilt(make_network(), lambda z: z - 3 * z.detach()).eval()
    report = check(network)
    assert not report.fit
    assert set(failed(report)) == {"derivatives"}
    assert "derivatives deviate by" in failed(report)["derivatives"]
    assert "Look for gradients cut by" in failed(report)["derivatives"]
    network.spoil = lambda z: -2 * z  # the cure: the same output with its gradient
    assert check(network).fit


def test_a_network_in_train_mode_is_looked_at_in_eval_mode_and_left_in_train_mode(make_network: MakeNetwork) -> None:
    network = nn.Sequential(nn.Dropout(0.5), make_network()).train()
    assert check(network).fit
    assert all(module.training for module in network.modules())


def test_dropout_that_stays_on_is_found(make_network: MakeNetwork) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        report = check(Spoilt(make_network(), lambda z: functional.dropout(z, 0.5, training=True)).eval())
    assert not report.fit
    assert "differ" in failed(report)["determinism"]


@pytest.mark.parametrize(
    "spoil", [lambda z: z - z.mean(0, keepdim=True) + z.sum(0), lambda z: z.cumsum(0).flip(0)], ids=["mean", "cumulated"]
)
def test_answers_that_depend_on_the_batch_are_found(spoil: Callable[[Tensor], Tensor], make_network: MakeNetwork) -> None:
    report = check(Spoilt(make_network(), spoil).eval())
    assert set(failed(report)) == {"independence"}
    assert "batch" in failed(report)["independence"]


def test_batch_norm_without_running_statistics_is_found_by_name(make_network: MakeNetwork) -> None:
    network = nn.Sequential(nn.BatchNorm3d(1, track_running_stats=False), make_network()).eval()
    assert "layer '0' (BatchNorm3d)" in failed(check(network))["independence"]


@pytest.mark.parametrize(
    ("spoil", "cure"),
    [
        (lambda z: z.softmax(1), "head='probabilities'"),
        (lambda z: z.sigmoid(), "head='probabilities'"),
        (lambda z: z[:, :1], "head='bernoulli'"),
        (lambda z: z.detach(), "no gradient"),
        (lambda z: torch.from_numpy(z.detach().numpy()), "no gradient"),
    ],
    ids=["softmax", "sigmoid", "one output", "detached", "numpy"],
)
def test_outputs_that_are_no_differentiable_logits_are_found_with_the_cure(
    spoil: Callable[[Tensor], Tensor], cure: str, make_network: MakeNetwork
) -> None:
    report = check(Spoilt(make_network(), spoil).eval())
    assert set(failed(report)) == {"decomposition"}
    assert cure in failed(report)["decomposition"]


def test_a_softmax_passes_under_its_own_head(make_network: MakeNetwork) -> None:
    assert check(Spoilt(make_network(), lambda z: z.softmax(1)).eval(), head="probabilities").fit


@pytest.mark.parametrize(
    "spoil",
    [lambda z: z.argmax(1), lambda z: {"a": z, "b": z}, lambda z: z[..., None].expand(-1, -1, 5), lambda z: "cat"],
    ids=["class index", "mapping", "one answer a voxel", "text"],
)
def test_an_output_that_cannot_be_read_ends_the_look(spoil: Callable[[Tensor], Tensor], make_network: MakeNetwork) -> None:
    report = check(Spoilt(make_network(), spoil).eval(), names=("a", "b", "c"))
    assert list(failed(report)) == ["output"]
    assert len(report.findings) == 1


def test_an_image_of_the_wrong_size_is_a_finding_not_a_crash() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(10, 2)).eval()
    assert list(failed(check(network))) == ["output"]


def test_another_number_of_class_names_is_found(make_network: MakeNetwork) -> None:
    report = check(make_network(), names=("a", "b"))
    assert failed(report) == {"class names": "2 class names for 3 outputs: correct channel_def in metadata.json."}


@pytest.mark.parametrize(("stated", "fit"), [(3, True), (4, False)])
def test_the_number_of_classes_stated_is_compared_with_the_outputs(stated: int, fit: bool, make_network: MakeNetwork) -> None:
    report = check_network(make_network(), IMAGE, CaseSettings(), stated_outputs=stated)
    assert report.fit is fit
    if not fit:
        assert failed(report) == {
            "class count": "metadata.json states 4 output(s) and the network gives 3: correct num_channels."
        }


class Sleeper(torch.autograd.Function):
    """The identity, which takes its time forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        time.sleep(0.2)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        time.sleep(0.5)
        return gradient


def test_time_is_a_forward_pass_and_as_many_products_as_the_head_needs() -> None:
    class Slow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Sleeper.apply(x).flatten(1)[:, :6]

    cost = check(Slow()).cost
    assert cost.products == 5
    assert cost.forward_seconds >= 0.2
    assert cost.product_seconds >= 0.5
    assert cost.slowest_product_seconds >= cost.product_seconds
    beside = cost.locality_seconds + cost.files_seconds
    assert cost.seconds == pytest.approx(cost.forward_seconds + 5 * cost.product_seconds + beside)
    most = cost.forward_seconds + 5 * cost.slowest_product_seconds
    assert cost.most_seconds == pytest.approx(most + cost.most_locality_seconds + cost.most_files_seconds)


def test_the_first_product_warms_up_and_is_not_counted() -> None:
    """The first backward pass takes a second, as where a library chooses its kernels, and the others none."""

    class Cold(torch.autograd.Function):
        passes = 0

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            time.sleep(1.0 if Cold.passes == 0 else 0.0)
            Cold.passes += 1
            return gradient

    class Warming(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Cold.apply(x).flatten(1)[:, :6]

    cost = check(Warming()).cost
    assert cost.slowest_product_seconds < 0.9


class Widened(torch.autograd.Function):
    """Scaled sums over the image; 64 copies of it are kept for the backward pass, which makes 64 more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        copies = x.repeat(1, 64, 1, 1, 1)
        ctx.save_for_backward(copies)
        return copies.sum((2, 3, 4))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (copies,) = ctx.saved_tensors
        return (copies * gradient[..., None, None, None]).sum(1, keepdim=True)


def test_memory_is_weights_graph_gradients_and_rows() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.ones(1000))

        def forward(self, x: Tensor) -> Tensor:
            return Widened.apply(x)

    cost = check(Wide(), head="bernoulli").cost
    assert (cost.weights_bytes, cost.products) == (4000, 64)
    assert 128 * IMAGE.nbytes <= cost.pass_bytes <= 134 * IMAGE.nbytes
    assert cost.results_bytes >= 64 * IMAGE.nbytes
    assert cost.peak_bytes == cost.weights_bytes + cost.pass_bytes + cost.results_bytes


def test_what_somebodys_network_raises_is_a_finding(make_network: MakeNetwork) -> None:
    def spoil(z: Tensor) -> Tensor:
        raise KeyError("no such layer")

    assert failed(check(Spoilt(make_network(), spoil).eval())) == {"output": "KeyError: 'no such layer'"}


class WithTable(nn.Module):
    """Adds a row of numbers to the logits."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        return self.backbone(image) * table.sum(1, keepdim=True)


def test_a_bundle_with_a_table_beside_the_image_is_probed_with_both(
    tmp_path: Path, make_bundle: Callable[..., Path], make_network: MakeNetwork
) -> None:
    root = make_bundle(tmp_path / "tiny")
    path = root / "configs" / "metadata.json"
    metadata = json.loads(path.read_text())
    inputs = metadata["network_data_format"]["inputs"]
    metadata["network_data_format"]["inputs"] = {"table": {"num_channels": 5, "spatial_shape": []}, **inputs}
    path.write_text(json.dumps(metadata))
    (root / "models" / "model.pt").unlink()
    torch.jit.save(torch.jit.script(WithTable(make_network())), root / "models" / "model.ts")
    bundle = load_bundle(root)
    assert (bundle.spatial_shape, bundle.further) == ((9, 8, 7), (("table", (5,)),))
    report = check_bundle(bundle, None, CaseSettings())
    assert report.fit
    assert [finding.name for finding in report.findings[:2]] == ["head", "inputs"]
    assert "table (5,)" in report.findings[1].detail


def counting(network: nn.Module) -> tuple[nn.Module, Counter[str]]:
    """A network, and how many images it was given and how many gradients left it; a closure's, which nobody gives back."""
    counts = Counter[str]()

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Tensor) -> Tensor:
            counts["images"] += image.shape[0]
            if image.requires_grad:
                image = image.clone()
                image.register_hook(lambda gradient: counts.update(gradients=1))
            return self.network(image)

    return Counting().eval(), counts


def segmenter(labels: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, labels, 1)).eval()


FORWARD, BACKWARD, SECOND = 1.0, 2.1, 3.0  # forward passes that each takes as long as, of a convolutional network


@pytest.mark.parametrize("budget", [None, "40MiB"])
@pytest.mark.parametrize(
    ("head", "classes", "method", "settings", "steps"),
    [
        ("categorical", 3, "exact", {}, 0),
        ("categorical", 40, "exact", {}, 0),
        ("bernoulli", 40, "adaptive", {"rank": 1, "tolerance": 0.5, "method": "adaptive"}, 0),
        ("categorical", 40, "matrix_free", {"rank": 2, "method": "matrix_free"}, 1),
        ("volumes", 5, "exact", {}, 0),
        ("volumes_bernoulli", 5, "exact", {}, 0),
        ("voxelwise", 3, "matrix_free", {"rank": 2}, 1),
        ("voxelwise_bernoulli", 3, "matrix_free", {"rank": 2}, 1),
    ],
)
def test_a_check_takes_no_more_than_fifteen_forward_passes(
    head: str,
    classes: int,
    method: str,
    settings: dict[str, Any],
    steps: int,
    budget: str | None,
    make_network: MakeNetwork,
) -> None:
    network, counts = counting(segmenter(classes) if head.startswith("vo") else make_network(classes=classes))
    report = check_network(network, IMAGE, CaseSettings(head, memory_budget=budget, **settings))
    assert report.fit, failed(report)
    assert report.cost is not None
    assert report.cost.method == method
    assert (report.cost.steps > 0) is (steps > 0)
    assert counts["images"] >= 7
    backward = 1 if steps else counts["gradients"]  # a second derivative passes the hook, dual numbers do not
    assert FORWARD * counts["images"] + BACKWARD * backward + SECOND * steps <= MOST_PASSES
    assert all(finding.certain for finding in report.findings)


def test_each_finding_is_told_when_it_is_known(make_network: MakeNetwork) -> None:
    """Told between the passes, and the cost after the first products, before the derivatives are compared."""
    (network, counts), told = counting(make_network()), list[tuple[str, int]]()
    listener = Listener(lambda finding: told.append((finding.name, counts["images"])), lambda words: told.append((words, -1)))
    check_network(network, IMAGE, CaseSettings(), listener=listener)
    assert [(name, images) for name, images in told if images >= 0] == [
        ("output", 1),
        ("class names", 1),
        ("determinism", 2),
        ("independence", 4),
        ("decomposition", 5),
        ("cost", 5),
        ("derivatives", 7),
    ]
    assert [name for name, images in told if images < 0][:4] == [
        "one forward pass",
        "the same image again",
        "two images together",
        "the first products",
    ]


def test_the_cost_is_that_of_the_settings(make_network: MakeNetwork) -> None:
    network = Spoilt(make_network(classes=40), lambda z: 60 * z).eval()  # few classes are likely

    def products(**settings: Any) -> tuple[int, int]:
        cost = check_network(network, IMAGE, CaseSettings("categorical", **settings)).cost
        assert cost is not None
        made = decompose(network, IMAGE, head="categorical", verify="never", **settings).record["jacobian_products"]
        assert made <= cost.most_products
        assert made == cost.products or cost.products < cost.most_products
        return cost.products, cost.most_products

    assert products() == (39, 39)
    few = products(method="adaptive", rank=1, tolerance=0.5)
    assert few[0] < 39
    more = products(method="adaptive", rank=3, tolerance=0.01)
    assert few[0] < more[0]
    free = products(method="matrix_free", rank=1)
    assert products(method="matrix_free", rank=3)[0] > free[0]


def test_a_doubt_that_would_take_too_long_is_left_open(make_network: MakeNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("SHORT", "MOST_PASSES", "VERIFICATION"):
        monkeypatch.setattr(f"monai_ifim.adapt.check.network.{limit}", 0)
    network = Spoilt(make_network(), lambda z: z - 3 * z.detach()).eval()
    report = check(network)
    assert report.findings[-1] == Finding(
        "derivatives",
        True,
        "not settled within 0 forward passes: monai-ifim decompose compares at length",
        certain=False,
    )


def test_a_constant_answer_has_no_cost(make_network: MakeNetwork) -> None:
    report = check(Spoilt(make_network(), lambda z: torch.arange(3.0).repeat(len(z), 1)).eval())
    assert report.fit
    assert (report.head, report.cost) == ("categorical", None)
    assert "does not change with the image" in {one.name: one.detail for one in report.findings}["decomposition"]
