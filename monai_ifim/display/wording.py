"""Texts about a decomposition that its figure and its table share."""

from __future__ import annotations

from torch import Tensor

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.heads.voxelwise import mean_probability
from monai_ifim.display.numbers import counted, number, probability, with_error

UNIT = "nats / unit²"


def answer_kind(d: Decomposition) -> str:
    """What one of the network's outputs is called: "class", "label" or "output"."""
    return str(d.record["answers"])


def answer_values(d: Decomposition, index: int) -> Tensor:
    """[C] float64 on the CPU: probabilities, their mean over the voxels of a segmentation, or the mean of a regression."""
    return mean_probability(d.probabilities[index : index + 1].detach())[0].cpu()


def answer(d: Decomposition, index: int) -> str:
    """The network's answer in a few words: the likeliest class, the likely labels, or the first outputs."""
    kind, values = answer_kind(d), answer_values(d, index)
    best = int(values.argmax())
    if kind == "output":
        return f"output {', '.join(number(float(v)) for v in values[:3])}{', …' if len(values) > 3 else ''}"
    if kind == "class" or d.probabilities.ndim > 2:
        mean = "mean " if d.probabilities.ndim > 2 else ""
        return f"{kind} {best}, {mean}p = {probability(float(values[best]))}"
    if len(values) == 1:
        return f"p = {probability(float(values[0]))}"
    likely = (values > 0.5).nonzero()[:, 0].tolist()
    named = ", ".join(map(str, likely[:5])) + (", …" if len(likely) > 5 else "")
    return f"label{'s' if len(likely) > 1 else ''} {named} (p > 0.5)" if likely else "no label above p = 0.5"


def method(d: Decomposition) -> str:
    """Head, method and number of Jacobian products."""
    products = d.record["jacobian_products"]
    return f"{d.record['head']}, {d.record['method']}, {counted(products, 'Jacobian product')}"


def trace_text(d: Decomposition, index: int) -> str:
    """The trace of F, with its standard error where it is an estimate."""
    return with_error(float(d.trace[index]), float(d.trace_error[index]))


def unit(d: Decomposition) -> str:
    """Unit of a step along an eigenvector."""
    return d.record["metric_unit"] or "that of the image"
