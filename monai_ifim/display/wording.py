"""How a decomposition is told in words and numbers, in its figure and in its table alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.heads.voxelwise import mean_probability

UNIT = "nats / unit²"
MINUS, TIMES = "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
ROUNDING = 1e-9  # of a share


def answer_kind(d: Decomposition) -> str:
    """What an answer is called; those of a regression, and of a head of one's own, are outputs."""
    return str(d.record["answers"])


def answer_values(d: Decomposition, index: int) -> Tensor:
    """[C] float64 on the CPU: probabilities, their mean over the voxels of a segmentation, or the mean of a regression."""
    return mean_probability(d.probabilities[index : index + 1].detach())[0].cpu()


def answer(d: Decomposition, index: int) -> str:
    """The answer in a few words."""
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
    """Head, method and how many products it took."""
    products = d.record["jacobian_products"]
    return f"{d.record['head']}, {d.record['method']}, {products} Jacobian product{'s' if products != 1 else ''}"


def unit(d: Decomposition) -> str:
    """What one unit of a step is."""
    return d.record["metric_unit"] or "that of the image"


def number(value: float) -> str:
    """Three digits with a true minus sign."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if exponent else mantissa).replace("-", MINUS)


def percent(share: float) -> str:
    """A share; 100 % only where nothing but rounding is missing."""
    if share > 1 - ROUNDING:
        return "100 %"
    return f"{math.floor(1000 * share) / 10:.1f} %" if share >= 0.001 else f"{number(100 * share)} %"


def probability(p: float) -> str:
    """Three digits; from 0.999 on what is missing to 1."""
    return f"1 {MINUS} {number(1 - p)}" if 0.999 < p < 1 else number(p)


def sizes(shape: Sequence[int]) -> str:
    """The sizes of an image, as 64 × 48."""
    return f" {TIMES} ".join(map(str, shape))
