"""Memory budgets: the same numbers from less memory, measured in processes of their own; what is kept, repeated or moved."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DenseNet, UNet, resnet10
from torch import Tensor, nn

from monai_ifim.core import Decomposition, IFIMError, MemoryWarning, decompose
from monai_ifim.core.batch_part import BatchPart
from monai_ifim.core.memory.checkpointing import choose_blocks, survey_activations
from monai_ifim.core.memory.lean_layers import lean_layers
from monai_ifim.core.memory.offload import Offload, StoredHost
from monai_ifim.core.settings import memory_bytes

Networks = Callable[..., nn.Sequential]
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        return resnet10(spatial_dims=3, n_input_channels=1, num_classes=4).double().eval()


@pytest.fixture(scope="module")
def densenet() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return DenseNet(2, 1, 30, init_features=8, growth_rate=4, block_config=(2, 3, 2)).double().eval()


def _volume(batch: int = 1) -> Tensor:
    return torch.randn(batch, 1, 34, 26, 30, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def _assert_same(found: Decomposition, expected: Decomposition) -> None:
    for name in ("eigenvalues", "eigenvectors", "rank", "trace", "spectrum", "high", "low", "sensitivity", "probabilities"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-9, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
        )


def _smallest(network: nn.Module, x: Tensor, **settings: Any) -> int:
    """The smallest budget, as the refusal of a smaller one names it, in MiB."""
    with pytest.raises(IFIMError, match="at least for one image of this size") as refusal:
        decompose(network, x, memory_budget=1, **settings)
    found = re.search(r"needs (\d+) MiB at least", str(refusal.value))
    assert found
    return int(found[1])


@pytest.mark.soak  # of a large network; the next test does the same with a small one
def test_smallest_budget_that_a_refusal_names_will_do_and_changes_no_number(resnet: nn.Module) -> None:
    x = _volume()
    budget = _smallest(resnet, x)
    d = decompose(resnet, x, memory_budget=budget * MEBIBYTE, energy=1.0)
    _assert_same(d, decompose(resnet, x, energy=1.0))
    assert d.record["settings"]["memory_budget"] == budget * MEBIBYTE


@pytest.mark.parametrize("method", ["exact", "adaptive", "matrix_free"])
@pytest.mark.parametrize("share", [1.0, 1.5, 40.0])
def test_any_budget_gives_the_same_numbers(densenet: nn.Module, method: str, share: float) -> None:
    x = torch.randn(3, 1, 96, 80, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    settings: dict[str, Any] = {"method": method, "rank": 3, "tolerance": 1e-9}
    budget = int(share * (_smallest(densenet, x, **settings) + 1) * MEBIBYTE)
    d = decompose(densenet, x, memory_budget=budget, **settings)
    assert d.record["settings"]["memory_budget"] == budget
    truth = decompose(densenet, x, method="exact", rank=3)
    torch.testing.assert_close(d.eigenvalues, truth.eigenvalues, rtol=1e-7, atol=0)
    torch.testing.assert_close(d.high, truth.high, rtol=0, atol=1e-5)


def test_voxelwise_under_a_budget() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = UNet(2, 1, 3, (4, 8), (2,)).double().eval()
    x = torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    settings: dict[str, Any] = {"head": "voxelwise", "rank": 2, "tolerance": 1e-6}
    budget = _smallest(network, x, **settings)
    d = decompose(network, x, memory_budget=f"{budget}MiB", **settings)
    torch.testing.assert_close(d.eigenvalues, decompose(network, x, **settings).eigenvalues, rtol=1e-6, atol=0)


def test_the_basis_of_the_matrix_free_method_counts_and_fewer_components_need_less() -> None:
    """Two tables of most_steps = min(columns, 8 rank + 48) vectors over 2 x 96 x 64 columns, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = UNet(2, 1, 3, (4, 8), (2,)).double().eval()
    x = torch.randn(1, 1, 96, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    settings: dict[str, Any] = {"head": "voxelwise", "tolerance": 0.5}
    columns, needed = 2 * 96 * 64, {}
    for rank in (2, 40):
        basis = 2 * (8 * rank + 48) * columns * 8
        with pytest.raises(
            IFIMError, match=rf"fewer components \(rank=\), whose basis is {-(-basis // MEBIBYTE)} MiB"
        ) as refusal:
            decompose(network, x, memory_budget=1, rank=rank, **settings)
        found = re.search(r"needs (\d+) MiB at least", str(refusal.value))
        assert found
        needed[rank] = int(found[1])
        assert basis / MEBIBYTE < needed[rank] < basis / MEBIBYTE * 1.05 + 20
    with pytest.raises(IFIMError, match="at least for one image"):
        decompose(network, x, memory_budget=f"{needed[2]}MiB", rank=40, **settings)
    assert decompose(network, x, memory_budget=f"{needed[2]}MiB", rank=2, **settings).rank.item() == 2


class _Block(nn.Sequential):
    """Layers whose inputs the backward pass needs, lean as it may be."""

    def __init__(self, channels: int) -> None:
        layers = [(nn.Conv2d(channels, channels, 3, padding=1), nn.InstanceNorm2d(channels), nn.SiLU()) for _ in range(2)]
        super().__init__(*[layer for group in layers for layer in group])


def _deep() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        blocks = [_Block(8) for _ in range(4)]
        head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
        return nn.Sequential(nn.Conv2d(1, 8, 3), *blocks, *head).double().eval()


def test_blocks_are_computed_again_and_nothing_of_the_network_is_changed() -> None:
    network, x = _deep(), torch.randn(1, 1, 90, 70, generator=torch.Generator().manual_seed(3)).double()
    calls = {name: 0 for name, _ in network.named_modules()}
    handles = []
    for name, module in network.named_modules():

        def count(*_: Any, name: str = name) -> None:
            calls[name] += 1

        handles.append(module.register_forward_hook(count))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    keys = {name: set(module.__dict__) for name, module in network.named_modules()}
    truth = decompose(network, x, verify="never")
    assert calls["0"] == calls["1.0"] == calls["4.5"] == 1
    budget = 4 * MEBIBYTE  # of which activations would take 6
    calls.update(dict.fromkeys(calls, 0))
    d = decompose(network, x, memory_budget=budget, verify="never")
    for handle in handles:
        handle.remove()
    _assert_same(d, truth)
    # Surveyed once and run once; inside a block, once more for each of the products, of which one measures.
    assert calls["0"] == 2
    assert calls["1.0"] == calls["4.4"] == 2 + d.record["jacobian_products"]
    assert {name: set(module.__dict__) for name, module in network.named_modules()} == keys
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_lean_layers_keep_less_and_give_the_same_outputs_and_gradients(resnet: nn.Module, densenet: nn.Module) -> None:
    pooled = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6, affine=False), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.Flatten())
    images = {
        resnet: _volume(),
        densenet: torch.randn(2, 1, 40, 36).double(),
        pooled.double().eval(): torch.randn(2, 1, 20, 17).double(),
    }
    for network, x in images.items():
        network.requires_grad_(False)
        leaf = x.clone().requires_grad_(True)
        plain = network(leaf)
        (gradient,) = torch.autograd.grad(plain.square().sum(), leaf)
        with lean_layers(network):
            lean = network(leaf)
            (other,) = torch.autograd.grad(lean.square().sum(), leaf)
        assert torch.equal(lean, plain)
        torch.testing.assert_close(other, gradient, rtol=1e-10, atol=1e-12 * float(gradient.abs().max()))
        own = {tensor.untyped_storage().data_ptr() for tensor in network.parameters()}
        kept = [survey_activations(lambda n=network, z=leaf: n(z.clone()), network, own).saved]
        with lean_layers(network):
            kept.append(survey_activations(lambda n=network, z=leaf: n(z.clone()), network, own).saved)
        network.requires_grad_(True)
        assert kept[1] < 0.4 * kept[0]


def test_survey_counts_what_autograd_saves(cnn: Networks) -> None:
    network = cnn((1, 9, 7), 4).double().requires_grad_(False)
    x = torch.randn(1, 1, 9, 7).double().requires_grad_(True)
    seen: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = network(x)
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    expected = sum(tensor.nbytes for address, tensor in seen.items() if address not in own)
    survey = survey_activations(lambda: network(x), network, own)
    torch.testing.assert_close(survey.output, output.detach())
    assert survey.saved == expected
    assert sum(survey.inside.get(child, 0) for child in network.children()) == expected


def test_blocks_are_the_largest_modules_below_the_limit(resnet: nn.Module) -> None:
    x = _volume().requires_grad_(True)
    survey = survey_activations(lambda: resnet(x.clone()), resnet, set())
    names = {module: name for name, module in resnet.named_modules()}
    whole = [names[block] for block in choose_blocks(resnet, survey, survey.saved)]
    assert {"layer1", "layer2", "layer3", "layer4"} <= set(whole)
    smaller = [names[block] for block in choose_blocks(resnet, survey, survey.inside[resnet.layer1] - 1)]
    assert "layer1" not in smaller
    assert all(survey.inside[resnet.get_submodule(name)] < survey.inside[resnet.layer1] for name in smaller)


@pytest.mark.parametrize("shape", [(3, 70_000), (2, 5, 301, 211)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.int64, torch.bfloat16])
def test_offload_gives_back_what_it_was_given(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    offload = Offload()
    tensor = (torch.randn(shape) * 10).to(dtype)
    transposed = tensor.transpose(0, -1)
    stored, other = offload.put(tensor), offload.put(transposed)
    assert torch.equal(stored.get(), tensor)
    assert torch.equal(other.get(), transposed)
    if tensor.ndim == 2:
        assert torch.equal(stored.window(17, 6003), tensor[:, 17:6003])


def test_offload_of_a_full_disk_names_the_folder_and_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    offload = Offload()
    stored = offload.put(torch.ones(3, 5))
    (stored.path.parent / "2").symlink_to("/dev/full")  # takes nothing
    with pytest.raises(IFIMError, match=rf"to {stored.path.parent} \(No space left on device\): free some space, .* TMPDIR"):
        offload.put(torch.ones(3, 5))


def test_stored_file_that_was_cut_short_is_told_and_not_read_as_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    offload = Offload()
    stored = offload.put(torch.ones(3, 500))
    stored.path.write_bytes(stored.path.read_bytes()[:-7])
    assert torch.equal(stored.window(0, 20)[:2], torch.ones(2, 20))
    with pytest.raises(IFIMError, match="truncated"):
        stored.get()


def test_rows_of_an_accelerator_lie_in_the_hosts_memory() -> None:
    row = torch.randn(3, 70)
    stored = StoredHost(row.clone(), torch.device("cpu"))
    assert torch.equal(stored.get(), row)
    assert torch.equal(stored.window(11, 53), row[:, 11:53])


def test_budget_holds_for_scripted_and_shared_blocks_and_for_plain_functions() -> None:
    """Of TorchScript's modules no forward can be run again, and a block that is called twice is one block."""
    x = torch.randn(1, 1, 90, 70, generator=torch.Generator().manual_seed(3)).double()
    plain = _deep()
    shared = nn.Sequential(plain[0], plain[1], plain[1], *plain[5:]).eval()
    with torch.no_grad():
        traced = nn.Sequential(plain[0], torch.jit.trace(plain[1], plain[0](x)), *plain[2:]).eval()
    networks: dict[str, Any] = {"shared": shared, "traced": traced, "function": lambda image: plain(image)}
    for name, network in networks.items():
        truth = decompose(network, x)
        budget = 4 * MEBIBYTE if name == "shared" else 8 * MEBIBYTE
        _assert_same(decompose(network, x, memory_budget=budget), truth)


def test_offload_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    offload = Offload()
    stored = offload.put(torch.ones(1000, 100))
    assert len(list(tmp_path.rglob("*"))) == 2
    del stored, offload
    assert list(tmp_path.iterdir()) == []


PEAK = """
import json, re, sys, torch
from pathlib import Path
from monai.networks.nets import resnet18
from monai_ifim.core import decompose

def status(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def plain():
    leaf = x.clone().requires_grad_(True)
    z = network(leaf)[0]
    for c in range(2):
        torch.autograd.grad(z[c], leaf, retain_graph=c < 1)

def eigenvalues(budget):
    return decompose(network, x, memory_budget=budget).eigenvalues[0].tolist()

torch.manual_seed(0)
network = resnet18(spatial_dims=3, n_input_channels=1, num_classes=3).eval()
x = torch.rand(1, 1, *[int(sys.argv[2])] * 3)
small = torch.rand(1, 1, 16, 16, 16, requires_grad=True)
network(small).sum().backward()
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
budget = int(sys.argv[1])
values = eigenvalues(budget) if budget else plain()
peak = status("VmHWM") - before
print(json.dumps([peak, values or eigenvalues(None)]))
"""


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of resident memory is Linux's to tell")
def test_measured_peak_stays_within_the_budget_where_plain_autograd_takes_two_and_a_half_times_it() -> None:
    def measured(budget: int) -> tuple[int, list[float]]:
        command = [sys.executable, "-c", PEAK, str(budget), "80"]
        return tuple(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))  # type: ignore[return-value]

    plain, truth = measured(0)
    budget = int(0.4 * plain)
    peak, values = measured(budget)
    assert peak <= 1.15 * budget
    torch.testing.assert_close(torch.tensor(values), torch.tensor(truth), rtol=1e-4, atol=0)


def test_accelerator_that_runs_out_of_memory_gets_fewer_images_at_a_time_and_says_so_once(
    cnn: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = cnn((1, 9, 7), 4).double()
    x = torch.randn(7, 1, 9, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    truth = decompose(network, x)
    forward, sizes = BatchPart.forward, list[int]()

    def cramped(part: BatchPart, image: Tensor) -> Tensor:
        sizes.append(image.shape[0])
        if image.shape[0] > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(part, image)

    monkeypatch.setattr(BatchPart, "forward", cramped)
    with pytest.warns(MemoryWarning, match="fewer images at a time") as caught:
        d = decompose(network, x)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert sizes[:3] == [7, 3, 1]
    _assert_same(d, truth)


def test_accelerator_too_small_for_one_image_moves_everything_then_gives_up(
    cnn: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cramped(part: BatchPart, image: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(BatchPart, "forward", cramped)
    with pytest.warns(MemoryWarning), pytest.raises(torch.OutOfMemoryError):
        decompose(cnn((1, 9, 7), 4), torch.randn(2, 1, 9, 7))


@pytest.mark.parametrize(
    ("text", "count"), [("2GiB", 2 * 2**30), ("500MB", 500 * 10**6), (" 1.5 MiB", 1572864), ("4096", 4096), (7, 7), (None, None)]
)
def test_budgets_can_be_written_in_words(text: Any, count: int | None) -> None:
    assert memory_bytes(text) == count
