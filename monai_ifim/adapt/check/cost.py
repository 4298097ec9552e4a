"""Time and memory of an image, from the first products of its decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from monai_ifim.adapt.check.findings import Cost
from monai_ifim.core.memory.blocks import LARGEST_BLOCK
from monai_ifim.core.settings import Settings
from monai_ifim.core.solvers.first_products import FirstProducts
from monai_ifim.display.numbers import bytes_size, counted, duration


def cost_of(
    network: Callable[..., Any],
    image: Tensor,
    settings: Settings,
    trial: FirstProducts,
    forward_seconds: float,
    step_seconds: float,
    pass_bytes: int,
) -> Cost:
    """The cost of a decomposition of `image` [1, channel, *spatial] whose first products were made.

    step_seconds: of a Jacobian-vector product, 0 where the method needs none.
    """
    state = [*network.parameters(), *network.buffers()] if isinstance(network, nn.Module) else []
    weights = sum(tensor.nbytes for tensor in state)
    results = _results(image, settings, trial, pass_bytes)
    bound = weights + pass_bytes + results
    if settings.budget is not None:
        bound = min(bound, weights + max(pass_bytes, settings.budget))
    (fewest, most), (steps, most_steps) = trial.products, trial.steps

    def seconds(products: int, among: int) -> float:
        return forward_seconds + (products - among) * trial.seconds + among * step_seconds

    return Cost(
        device=str(image.device),
        method=trial.method,
        products=fewest,
        most_products=most,
        steps=steps,
        most_steps=most_steps,
        forward_seconds=forward_seconds,
        product_seconds=trial.seconds,
        step_seconds=step_seconds,
        seconds=seconds(fewest, steps),
        most_seconds=seconds(most, most_steps),
        weights_bytes=weights,
        pass_bytes=pass_bytes,
        results_bytes=results,
        peak_bytes=bound,
    )


def _results(image: Tensor, settings: Settings, trial: FirstProducts, pass_bytes: int) -> int:
    """Bytes of rows and components: the rows beside the passes, or all of the results once the graph is freed."""
    count = trial.products[1] - trial.steps[1]
    rows = count * image.nbytes
    components = min(settings.resolved.rank or count, count) * image.nbytes
    # Once the graph is freed: rows, eigenvectors, high and low, diag F and a float64 working block.
    working = 8 * image.numel() + 8 * min(LARGEST_BLOCK, 2 * count * image.numel())
    return rows + max(0, components + 2 * image.nbytes + working - pass_bytes)


def described(cost: Cost) -> str:
    """The cost in a sentence or two."""
    products = _counted(cost.products - cost.steps, cost.most_products - cost.most_steps, "vector-Jacobian product")
    times = [f"a forward pass {duration(cost.forward_seconds)}", f"{products} of {duration(cost.product_seconds)}"]
    if cost.most_steps:
        steps = _counted(cost.steps, cost.most_steps, "Jacobian-vector product")
        times.append(f"{steps} of {duration(cost.step_seconds)}")
    memory = [
        f"weights {bytes_size(cost.weights_bytes)}",
        f"tensors alive at once until the first products {bytes_size(cost.pass_bytes)} (counted; buffers inside the kernels are "
        "not seen)",
        f"results {bytes_size(cost.results_bytes)} (calculated)",
    ]
    most = "" if cost.most_seconds == cost.seconds else f" to {duration(cost.most_seconds)}"
    return (
        f"about {duration(cost.seconds)}{most} and {bytes_size(cost.peak_bytes)} an image on {cost.device}. "
        f"Time: {', '.join(times[:-1])} and {times[-1]}, each timed once. Peak memory: {', '.join(memory)}. Locality radius and "
        "files come on top."
    )


def _counted(fewest: int, most: int, noun: str) -> str:
    return counted(fewest, noun) if fewest == most else f"{fewest} to {counted(most, noun)}"
