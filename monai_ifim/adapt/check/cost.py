"""Time and memory of an image, from the first products of its decomposition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from monai_ifim.adapt.check.files import FileTimes
from monai_ifim.adapt.check.findings import Cost
from monai_ifim.core.heads.registry import head_class
from monai_ifim.core.locality import coarse_search
from monai_ifim.core.memory.blocks import LARGEST_BLOCK
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.first_products import FirstProducts
from monai_ifim.display.numbers import bytes_size, counted, duration, range_text

RADIUS_PASSES = (4, 12)  # images in passes for the radius of a component: smooth networks, and one with many kinks


@dataclass(frozen=True)
class PassTimes:
    """Seconds of passes: forward, after one that warmed up; step: of a Jacobian-vector product, 0 where the method needs none."""

    forward: float
    step: float


def cost_of(
    network: Callable[..., Any],
    image: Tensor,
    settings: Settings,
    trial: FirstProducts,
    passes: PassTimes,
    files: FileTimes,
    pass_bytes: int,
) -> Cost:
    """The cost of a decomposition of `image` [1, channel, *spatial] whose first products were made, and of its files."""
    state = [*network.parameters(), *network.buffers()] if isinstance(network, nn.Module) else []
    weights = sum(tensor.nbytes for tensor in state)
    results = _results(image, settings, trial, pass_bytes)
    bound = weights + pass_bytes + results
    if settings.budget is not None:
        bound = min(bound, weights + max(pass_bytes, settings.budget))
    (fewest, most), (steps, most_steps) = trial.products, trial.steps
    few, many = _components(settings, trial)
    radius = [n * count * passes.forward for n, count in zip(_radius_passes(trial.head, image), (few, many), strict=True)]
    written = files.of(few, parallel=True), files.of(many, parallel=False)

    def computed(product: float, products: int, among: int) -> float:
        return passes.forward + (products - among) * product + among * passes.step

    return Cost(
        device=str(image.device),
        method=trial.method,
        products=fewest,
        most_products=most,
        steps=steps,
        most_steps=most_steps,
        forward_seconds=passes.forward,
        product_seconds=min(trial.times),
        slowest_product_seconds=max(trial.times),
        step_seconds=passes.step,
        locality_seconds=radius[0],
        most_locality_seconds=radius[1],
        files_seconds=written[0],
        most_files_seconds=written[1],
        seconds=computed(min(trial.times), fewest, steps) + radius[0] + written[0],
        most_seconds=computed(max(trial.times), most, most_steps) + radius[1] + written[1],
        weights_bytes=weights,
        pass_bytes=pass_bytes,
        results_bytes=results,
        peak_bytes=bound,
    )


def _components(settings: Settings, trial: FirstProducts) -> tuple[int, int]:
    """How many components are kept: at least and at most. With a share of the trace one may hold it, or all of the columns."""
    most = trial.products[1] - trial.steps[1]
    rank = settings.resolved.rank
    return (1, most) if rank is None else (min(rank, most), min(rank, most))


def _radius_passes(head: str, image: Tensor) -> tuple[int, int]:
    """Forward passes for the locality radius of a component, as few and as many as usual."""
    coarse = coarse_search(head_class(head)(), image)
    return RADIUS_PASSES if coarse is None else (coarse.steps, coarse.steps)


def _results(image: Tensor, settings: Settings, trial: FirstProducts, pass_bytes: int) -> int:
    """Bytes of rows and components: the rows beside the passes, or all of the results once the graph is freed."""
    count = trial.products[1] - trial.steps[1]
    rows = count * image.nbytes
    components = min(settings.resolved.rank or count, count) * image.nbytes
    # Once the graph is freed: rows, eigenvectors, high and low, diag F and a float64 working block.
    working = 8 * image.numel() + 8 * min(LARGEST_BLOCK, 2 * count * image.numel())
    return rows + max(0, components + 2 * image.nbytes + working - pass_bytes)


def described(cost: Cost) -> str:
    """The cost in a few sentences."""
    products = _counted(cost.products - cost.steps, cost.most_products - cost.most_steps, "vector-Jacobian product")
    times = [
        f"a forward pass {duration(cost.forward_seconds)}",
        f"{products} of {_range(cost.product_seconds, cost.slowest_product_seconds)}",
    ]
    if cost.most_steps:
        steps = _counted(cost.steps, cost.most_steps, "Jacobian-vector product")
        times.append(f"{steps} of {duration(cost.step_seconds)}")
    times.append(f"locality radius {_range(cost.locality_seconds, cost.most_locality_seconds)}")
    memory = [
        f"weights {bytes_size(cost.weights_bytes)}",
        f"tensors alive at once until the first products {bytes_size(cost.pass_bytes)} (counted; buffers inside the kernels are "
        "not seen)",
        f"results {bytes_size(cost.results_bytes)} (calculated)",
    ]
    return (
        f"{_range(cost.seconds, cost.most_seconds)} and {bytes_size(cost.peak_bytes)} an image on {cost.device}, files included. "
        f"Time, after a pass that warmed up: {', '.join(times)} and files {_range(cost.files_seconds, cost.most_files_seconds)}. "
        f"Peak memory: {', '.join(memory)}."
    )


def _range(low: float, high: float) -> str:
    """Two times, one where they read the same."""
    return range_text((low, high), duration)


def _counted(fewest: int, most: int, noun: str) -> str:
    return counted(fewest, noun) if fewest == most else f"{fewest} to {counted(most, noun)}"
