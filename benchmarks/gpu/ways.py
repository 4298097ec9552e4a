"""Other ways to run the passes that exact needs, over those passes one by one: what each would give, were it built in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.baselines import bare_passes
from benchmarks.networks import Subject, densenet121, frozen, residual18, small_densenet
from benchmarks.results import Row
from benchmarks.timing import Setting
from monai_ifim import decompose

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
WARM_UP = 3  # runs before a graph is captured


def ways(setting: Setting) -> list[Row]:
    """A row per network and way; a way that the device lacks or PyTorch refuses has its reason in place of a number."""
    device = setting.device
    subjects = [small_densenet(6, 32, device)] if setting.quick else [densenet121(6, 224, device), residual18(3, 3, 64, device)]
    return [row for one in subjects for row in _rows(setting, one)]


def _rows(setting: Setting, one: Subject) -> list[Row]:
    setting.note(one.title)
    network = frozen(one.network)
    plain = one_by_one(network, one.image, one.classes)
    builds: dict[str, Callable[[], Callable[[], Tensor]]] = {
        "batched cotangents": lambda: lambda: batched(network, one.image, one.classes),
        "CUDA graph": lambda: graphed(network, one.image, one.classes),
        "channels last": lambda: _channels_last(one),
    }
    rows = []
    for name, build in builds.items():
        what = f"{name} / passes one by one"
        try:
            call = build()
            difference = float((call() - plain).abs().max() / plain.abs().max())
        except RuntimeError as refused:
            rows.append(Row(what, one.title, None, details=str(refused).splitlines()[0]))
            continue
        timings = setting.measure({name: call, "passes": lambda: bare_passes(network, one.image, one.classes)})
        details = f"{timings.describe()}; gradients differ by up to {difference:.1e} of the largest"
        rows.append(Row(what, one.title, timings.ratio(name, "passes"), None, "", details, timings.seconds))
    return [*rows, _decomposed(setting, one)]


def one_by_one(network: nn.Module, image: Tensor, classes: int) -> Tensor:
    """Gradients of the first C - 1 logits, [C - 1, *image], each from a backward pass of its own."""
    leaf = image.detach().clone(memory_format=torch.preserve_format).requires_grad_(True)
    logits = network(leaf)[0]
    return torch.stack([torch.autograd.grad(logits[c], leaf, retain_graph=c < classes - 2)[0] for c in range(classes - 1)])


def batched(network: nn.Module, image: Tensor, classes: int) -> Tensor:
    """The same from one backward pass of all cotangents together (`is_grads_batched`)."""
    leaf = image.detach().clone().requires_grad_(True)
    logits = network(leaf)
    cotangents = torch.eye(classes, device=image.device, dtype=logits.dtype)[: classes - 1, None]
    return torch.autograd.grad(logits, leaf, cotangents, is_grads_batched=True)[0]


def graphed(network: nn.Module, image: Tensor, classes: int) -> Callable[[], Tensor]:
    """The same replayed from a CUDA graph of all passes; raises RuntimeError on other devices."""
    if image.device.type != "cuda":
        raise RuntimeError(f"a CUDA graph needs a CUDA device, and this is {image.device}")
    leaf = image.detach().clone().requires_grad_(True)

    def run() -> Tensor:
        logits = network(leaf)[0]
        return torch.stack([torch.autograd.grad(logits[c], leaf, retain_graph=c < classes - 2)[0] for c in range(classes - 1)])

    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = run()

    def replayed() -> Tensor:
        graph.replay()
        return found

    return replayed


def _channels_last(one: Subject) -> Callable[[], Tensor]:
    network, image = _moved(one)
    return lambda: one_by_one(network, image, one.classes)


def _decomposed(setting: Setting, one: Subject) -> Row:
    """The whole decomposition with network and image in this layout, which needs nothing of the package."""
    network, image = _moved(one)
    run, other = (
        (lambda n=n, x=x: decompose(n, x, head="categorical", method="exact", verify="never"))
        for n, x in ((one.network, one.image), (network, image))
    )
    timings = setting.measure({"channels last": other, "as it comes": run})
    ratio = timings.ratio("channels last", "as it comes")
    return Row("exact, channels last / as it comes", one.title, ratio, None, "", timings.describe(), timings.seconds)


def _moved(one: Subject) -> tuple[nn.Module, Tensor]:
    layout = LAYOUTS[one.image.ndim]
    network = frozen(one.network).to(memory_format=layout)  # type: ignore[call-overload]
    return network, one.image.to(memory_format=layout)
