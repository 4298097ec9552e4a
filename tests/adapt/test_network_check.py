"""`check_network` on networks that keep the promises and on networks that break one each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_ifim.adapt.network import NetworkReport, check_network
from monai_ifim.adapt.options import DecomposeOptions

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
    return check_network(network, IMAGE, DecomposeOptions(head), names)


def failed(report: NetworkReport) -> dict[str, str]:
    return {finding.name: finding.detail for finding in report.findings if not finding.passed}


def test_a_good_network_passes_every_look(make_network: MakeNetwork) -> None:
    report = check(make_network(), names=("a", "b", "c"))
    assert report.fit
    assert [f.name for f in report.findings] == ["output", "determinism", "independence", "decomposition", "class names"]
    assert "3 output(s)" in report.findings[0].detail
    assert "head categorical, 2 vector-Jacobian" in report.findings[3].detail


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
