"""Texts about a decomposition that its figure and its table share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from monai_ifim.core.decomposition import Decomposition
from monai_ifim.core.errors import ImageError
from monai_ifim.core.heads.voxelwise import mean_probability
from monai_ifim.display.numbers import counted, number, probability, with_error


def answer_kind(d: Decomposition) -> str:
    """What one of the network's outputs is called: "class", "label" or "output"."""
    return str(d.record["answers"])


def answer_values(d: Decomposition, index: int) -> Tensor:
    """[C] float64 on the CPU: probabilities, their mean over the voxels of a segmentation, or the mean of a regression."""
    return mean_probability(d.probabilities[index : index + 1].detach())[0].cpu()


def output_names(d: Decomposition, names: Sequence[str] | None = None) -> list[str]:
    """What each output is called: by the names that are given, or by kind and number. Raises ImageError for another number of
    names than of outputs; one binary output may have two names, the second of which is its own."""
    kind, outputs = answer_kind(d), d.probabilities.shape[1]
    if names is None:
        return [f"{kind} {c}" for c in range(outputs)]
    given = list(map(str, names))
    if len(given) == 2 and outputs == 1:
        given = given[1:]
    if len(given) != outputs:
        raise ImageError(f"class_names: {counted(len(given), 'name')} for {counted(outputs, 'output')}: give one for each.")
    return given


def answer(d: Decomposition, index: int, names: Sequence[str] | None = None) -> str:
    """The network's answer in a few words: the likeliest class, the likely labels, or the first outputs; names: as of
    `output_names`."""
    kind, values, called = answer_kind(d), answer_values(d, index), output_names(d, names)
    best = int(values.argmax())
    if kind == "output":
        said = [
            number(float(v)) if names is None else f"{name} {number(float(v))}"
            for name, v in zip(called, values[:3], strict=False)
        ]
        return f"{'output ' if names is None else ''}{', '.join(said)}{', …' if len(values) > 3 else ''}"
    if kind == "class" or d.probabilities.ndim > 2:
        mean = "mean " if d.probabilities.ndim > 2 else ""
        return f"{called[best]}, {mean}p = {probability(float(values[best]))}"
    if len(values) == 1:
        return f"{'' if names is None else f'{called[0]}, '}p = {probability(float(values[0]))}"
    likely = (values > 0.5).nonzero()[:, 0].tolist()
    chosen = likely if names is None else [called[c] for c in likely]
    named = ", ".join(map(str, chosen[:5])) + (", …" if len(likely) > 5 else "")
    return f"label{'s' if len(likely) > 1 else ''} {named} (p > 0.5)" if likely else "no label above p = 0.5"


def method(d: Decomposition) -> str:
    """Head, method and number of products with the Jacobian."""
    products = d.record["jacobian_products"]
    return f"{d.record['head']}, {d.record['method']}, {counted(products, 'product')}"


def trace_text(d: Decomposition, index: int) -> str:
    """The trace of F, with its standard error where it is an estimate."""
    return with_error(float(d.trace[index]), float(d.trace_error[index]))


def unit(d: Decomposition) -> str:
    """Unit of a step along an eigenvector."""
    return d.record["metric_unit"] or "that of the image"
