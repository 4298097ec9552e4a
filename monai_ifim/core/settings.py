"""The settings of a decomposition as one checked record."""

from __future__ import annotations

import re
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal, get_args

from torch import Tensor

from monai_ifim.core.errors import IFIMError
from monai_ifim.core.operator.metric import Metric, as_metric
from monai_ifim.core.spectrum import check_selection

Method = Literal["auto", "exact", "adaptive", "matrix_free"]
Precision = Literal["float32", "float64", "bfloat16", "float16"]

UNITS = {
    "": 1,
    "B": 1,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}


@dataclass(frozen=True)
class Settings:
    """What `monai_ifim.decompose` is asked for besides network, image and head; see there. Numbers become plain ones.

    Raises IFIMError for what cannot be, with the cure.
    """

    energy: float = 0.99
    rank: int | None = None
    method: Method = "auto"
    tolerance: float = 1e-4
    memory_budget: int | str | None = None
    metric: Metric | float | Tensor | None = None
    precision: Precision | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        energy, rank = check_selection(self.energy, self.rank)
        checked: dict[str, Any] = {
            "energy": energy,
            "rank": rank,
            "tolerance": check_tolerance(self.tolerance),
            "memory_budget": memory_bytes(self.memory_budget),
            "metric": as_metric(self.metric),
            "seed": check_seed(self.seed),
        }
        check_name("method", self.method, get_args(Method))
        if self.precision is not None:
            check_name("precision", self.precision, get_args(Precision))
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @property
    def budget(self) -> int | None:
        """The memory budget in bytes."""
        return self.memory_budget if isinstance(self.memory_budget, int) else None

    @property
    def input_metric(self) -> Metric | None:
        """The metric."""
        return self.metric if isinstance(self.metric, Metric) else None


def check_name(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise IFIMError where `value` is none of the `known` names."""
    if value not in known:
        raise IFIMError(f"unknown {what} {value!r}: choose one of {', '.join(map(repr, known))}.")


def check_tolerance(tolerance: float) -> float:
    """The tolerance as a plain number; raises IFIMError unless 0 < tolerance < 1."""
    value = float(tolerance) if isinstance(tolerance, Real) and not isinstance(tolerance, bool) else 0.0
    if not 0.0 < value < 1.0:
        raise IFIMError(f"tolerance={tolerance!r} is a relative error of eigenvalues: give a number above 0 and below 1.")
    return value


def check_seed(seed: int) -> int:
    """The seed as a plain number; raises IFIMError unless it is a whole number from 0 on."""
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= seed < 2**63:
        raise IFIMError(f"seed={seed!r}: give a whole number from 0 on.")
    return int(seed)


def memory_bytes(budget: int | str | None) -> int | None:
    """A budget in bytes from a number or a text such as "2GiB", "500 MB"; raises IFIMError where it is neither.

    >>> memory_bytes("1.5GiB")
    1610612736
    """
    if budget is None or budget == "":
        return None
    if isinstance(budget, Integral) and not isinstance(budget, bool):
        value = int(budget)
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", budget) if isinstance(budget, str) else None
        value = int(float(match[1]) * UNITS.get(match[2].upper(), 0)) if match else 0
    if value <= 0:
        raise IFIMError(f"memory_budget={budget!r}: give bytes as a whole number, or a text such as '2GiB' or '500MB'.")
    return value
