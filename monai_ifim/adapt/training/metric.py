"""Numbers of the decompositions of an epoch, as a metric of MONAI and as one of ignite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from monai.data import MetaTensor
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from torch import Tensor

from monai_ifim.adapt.components import RECORD
from monai_ifim.core import IFIMError

Statistic = Literal["median", "mean"]
NUMBERS = ("trace", "leading_eigenvalue", "rank", "energy_kept", "locality_radius")
NO_RECORD = (
    "the output holds no components of a decomposition with their records: let the evaluator's inferer be IFIMInferer(), or add "
    "IFIMHandler() to its handlers, and keep MONAI's metadata (monai.data.set_track_meta(True))."
)


class IFIMStatistics(CumulativeIterationMetric):
    """Trace, leading eigenvalue, number and share of the components, and locality radius, over many images.

    statistic: "median" or "mean" over the images; traces of different images may differ by powers of ten, and a mean is then
    that of the largest. Raises IFIMError for any other.

    Called with the output of `IFIMInferer`, batched or decollated. `aggregate` gives the statistic by name, "ifim_trace" and
    so on, in the units of the records (nats per unit of the image squared; the radius in units of the image); a number that no
    image has, such as the radius where it was not asked for, is left out, and so is one that is infinite.
    """

    def __init__(self, statistic: Statistic = "median") -> None:
        super().__init__()
        if statistic not in get_args(Statistic):
            raise IFIMError(f"unknown statistic {statistic!r}: choose 'median' or 'mean'.")
        self.statistic: Statistic = statistic

    def __call__(self, y_pred: Any, y: Any = None, **kwargs: Any) -> Tensor:
        """Add the images of an output; returns their numbers [B, 5], NaN where an image has none."""
        numbers = torch.tensor(
            [_numbers(record) for item in components_of_output(y_pred) for record in _records(item)], dtype=torch.float64
        )
        added: Tensor = super().__call__(numbers)
        return added

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **kwargs: Any) -> Tensor:
        return y_pred

    def aggregate(self) -> dict[str, float]:
        """The statistic of each number over all images so far."""
        values = self.get_buffer()
        if not isinstance(values, Tensor) or values.numel() == 0:
            raise IFIMError(f"no image was decomposed yet: {NO_RECORD}")
        found = {}
        for name, column in zip(NUMBERS, values.unbind(1), strict=True):
            there = column[~column.isnan()]
            if there.numel():
                found[f"ifim_{name}"] = float(torch.quantile(there, 0.5) if self.statistic == "median" else there.mean())
        return {name: value for name, value in found.items() if abs(value) < float("inf")}


class IFIMMetric(IgniteMetricHandler):
    """`IFIMStatistics` for an evaluator's `additional_metrics`; MONAI's evaluators ignore these unless `key_val_metric` is given.

    With `IFIMInferer` as the evaluator's inferer or `IFIMHandler` among its handlers, `engine.state.metrics` gets each number
    under its own name after an epoch, where StatsHandler, TensorBoardStatsHandler and MLFlowHandler find it;
    `engine.state.metric_details` has the numbers of every image [images, 5]. As `key_val_metric` its name is that of a number:
    {"ifim_trace": IFIMMetric()}.

    statistic: as `IFIMStatistics`.
    """

    def __init__(self, statistic: Statistic = "median") -> None:
        super().__init__(metric_fn=IFIMStatistics(statistic), output_transform=lambda output: (output, None))
        self._metrics_result_mode = "flatten"  # loggers take numbers, and no mapping of them beside these


def components_of_output(output: Any) -> list[Mapping[str, Any]]:
    """The components in an evaluator's output: of the batch, or of each of its decollated images.

    They stand in the output itself (`IFIMHandler`) or under its entry "pred" (`IFIMInferer`). Raises IFIMError where there are
    none.
    """
    items = list(output) if isinstance(output, Sequence) else [output]
    found = [_components_in(item) for item in items]
    if not found:
        raise IFIMError(NO_RECORD)
    return found


def _components_in(item: Any) -> Mapping[str, Any]:
    places = [item, item.get("pred")] if isinstance(item, Mapping) else []
    for place in places:
        if not isinstance(place, Mapping):
            continue
        high = place.get("ifim_high")
        if isinstance(high, MetaTensor) and RECORD in high.meta:
            return place
    raise IFIMError(NO_RECORD)


def _records(components: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The record of each image of a batch, or of the one decollated image."""
    texts = components["ifim_high"].meta[RECORD]
    return [json.loads(text) for text in ([texts] if isinstance(texts, str) else texts)]


def _numbers(record: Mapping[str, Any]) -> list[float]:
    """NUMBERS of one image; the radius is that of the leading component."""
    missing = float("nan")
    radii, eigenvalues = record["locality_radius"], record["eigenvalues"]
    radius = missing if not radii else float("inf") if radii[0] is None else radii[0]
    leading = eigenvalues[0] if eigenvalues else 0.0
    return [record["trace"], leading, float(record["rank"]), record["energy_kept"], radius]
