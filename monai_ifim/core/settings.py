"""How a decomposition is made, as one checked description."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property
from numbers import Integral, Real
from typing import Any, NamedTuple, Self, TypedDict, get_args

from torch import Tensor

from monai_ifim.core.coordinates import Family, as_families, families_from
from monai_ifim.core.errors import IFIMError
from monai_ifim.core.heads.answer_mask import AnswerMask, as_answer_mask, mask_from
from monai_ifim.core.heads.base import UNDESCRIBED, Head
from monai_ifim.core.heads.choice import columns_at_every_voxel
from monai_ifim.core.heads.registry import check_head, head_from
from monai_ifim.core.heads.volumes import VolumeTolerance
from monai_ifim.core.operator.metric import Metric, as_metric, metric_from
from monai_ifim.core.spectrum import check_selection
from monai_ifim.options import (
    ENERGY,
    STATED,
    TOLERANCE,
    VOXELWISE_RANK,
    VOXELWISE_TOLERANCE,
    Decides,
    Method,
    Option,
    Precision,
    Verify,
    option,
)

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


class SettingsShortcuts(TypedDict, total=False):
    """The fields of `Settings` as keywords, for constructors that accept them instead of `settings=`."""

    head: str | Head
    output_key: str | int | None
    energy: float | None
    rank: int | None
    method: Method
    tolerance: float | None
    probes: int
    memory_budget: int | str | None
    metric: Metric | float | Tensor | None
    precision: Precision | None
    seed: int
    locality: bool
    verify: Verify
    volume_tolerance: str
    answer: str | int | None
    answer_mask: AnswerMask | Tensor | None
    coordinates: Sequence[Family]


class Resolved(NamedTuple):
    """What decides how many components are kept, and to which relative error of their eigenvalues; rank overrides energy."""

    energy: float
    rank: int | None
    tolerance: float


@dataclass(frozen=True)
class Settings:
    """How a decomposition is made; each field as the argument of `monai_ifim.decompose` of that name.

    locality: compute the locality radius too. Numbers of other libraries become plain ones. energy, tolerance: None where they
    are not stated; `resolved` has what is used.
    `describe` gives what is used as plain data, `from_description` makes the settings again from it, and `differences` names the
    fields by which two settings give different results. Raises IFIMError, with the cure, for invalid values.
    """

    head: str | Head = option("head")
    _: KW_ONLY
    output_key: str | int | None = option("output_key")
    energy: float | None = option("energy")
    rank: int | None = option("rank")
    method: Method = option("method")
    tolerance: float | None = option("tolerance")
    probes: int = option("probes")
    memory_budget: int | str | None = option("memory_budget")
    metric: Metric | float | Tensor | None = option("metric")
    precision: Precision | None = option("precision")
    seed: int = option("seed")
    locality: bool = option("locality")
    verify: Verify = option("verify")
    volume_tolerance: str = option("volume_tolerance")
    answer: str | int | None = option("answer")
    answer_mask: AnswerMask | Tensor | None = option("answer_mask")
    coordinates: Sequence[Family] = option("coordinates")

    def __post_init__(self) -> None:
        check_head(self.head)
        energy, rank = check_selection(ENERGY if self.energy is None else self.energy, self.rank)
        checked: dict[str, Any] = {
            "volume_tolerance": check_volume_tolerance(self.volume_tolerance),
            "answer": check_answer(self.answer),
            "answer_mask": as_answer_mask(self.answer_mask),
            "output_key": check_output_key(self.output_key),
            "energy": None if self.energy is None else energy,
            "rank": rank,
            "tolerance": None if self.tolerance is None else check_tolerance(self.tolerance),
            "probes": check_probes(self.probes),
            "memory_budget": memory_bytes(self.memory_budget),
            "metric": as_metric(self.metric),
            "seed": check_seed(self.seed),
            "coordinates": as_families(self.coordinates),
        }
        check_name("method", self.method, get_args(Method))
        if self.precision is not None:
            check_name("precision", self.precision, get_args(Precision))
        check_name("verify", self.verify, get_args(Verify))
        check_switches(self)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @cached_property
    def resolved(self) -> Resolved:
        """Selection and tolerance that are used: of what is not stated the defaults of the head.

        A head with columns at every voxel has a flat spectrum, of which no few components hold a large share.
        """
        voxelwise = columns_at_every_voxel(self.head)
        stated = self.energy is not None or self.rank is not None
        rank = VOXELWISE_RANK if voxelwise and not stated else self.rank
        tolerance = VOXELWISE_TOLERANCE if voxelwise else TOLERANCE
        return Resolved(
            ENERGY if self.energy is None else self.energy, rank, tolerance if self.tolerance is None else self.tolerance
        )

    @property
    def budget(self) -> int | None:
        """The memory budget in bytes."""
        return self.memory_budget if isinstance(self.memory_budget, int) else None

    @property
    def region(self) -> AnswerMask | None:
        """The mask of the answer."""
        return self.answer_mask if isinstance(self.answer_mask, AnswerMask) else None

    @property
    def families(self) -> tuple[Family, ...]:
        """The families of coordinates."""
        return tuple(self.coordinates)

    @property
    def input_metric(self) -> Metric | None:
        """The metric."""
        return self.metric if isinstance(self.metric, Metric) else None

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Every field's option by the name of the field."""
        return {each.name: each.metadata["option"] for each in fields(cls)}

    @classmethod
    def of(
        cls,
        settings: Settings | None = None,
        shortcuts: Mapping[str, Any] | None = None,
        allowed: Collection[str] = (),
        besides: Collection[str] = (),
    ) -> Self:
        """`settings` as this class, with the fields in `shortcuts` replaced.

        allowed: fields that shortcuts may name, by default all. besides: further keywords of the constructor that took the
        shortcuts. Raises IFIMError for any other name, and lists all of these.
        """
        shortcuts = shortcuts or {}
        known = cls.options()
        _check_names(shortcuts, allowed or known, besides)
        if settings is not None and not isinstance(settings, Settings):
            raise IFIMError(f"settings={settings!r}: give {cls.__name__}(...), or its fields as keywords.")
        given = {} if settings is None else {each.name: getattr(settings, each.name) for each in fields(settings)}
        return cls(**({name: value for name, value in given.items() if name in known} | dict(shortcuts)))

    def describe(self) -> dict[str, Any]:
        """Every field as plain data; head and metric by their own `describe`."""
        return dict(self._description)

    @cached_property
    def _description(self) -> dict[str, Any]:
        used = self.resolved._asdict()
        return {name: used[name] if name in used else _described(getattr(self, name)) for name in self.options()}

    @classmethod
    def from_description(cls, description: Mapping[str, Any], **given: Any) -> Self:
        """The settings from what `describe` gave; given: fields that replace described ones.

        A missing field that never decides the result has its default, one that earlier versions lack what those meant by it.
        Raises IFIMError for any other that is missing or unknown, and for a head, metric, mask or family of coordinates that its
        description does not hold.
        """
        if not isinstance(description, Mapping):
            raise IFIMError(f"{description!r} does not describe settings.")
        known = cls.options()
        _check_names(description, known)
        values = dict(description) | given
        values = {name: one.default for name, one in known.items() if one.decides == "never"} | _unstated(known) | values
        if missing := [name for name in known if name not in values]:
            raise IFIMError(f"the setting {', '.join(map(repr, missing))} is missing from the description.")
        if isinstance(values["head"], Mapping):
            values["head"] = head_from(values["head"])
        if isinstance(values["metric"], Mapping):
            values["metric"] = metric_from(values["metric"])
        if isinstance(values["answer_mask"], Mapping):
            values["answer_mask"] = mask_from(values["answer_mask"])
        values["coordinates"] = families_from(values["coordinates"])
        return cls(**values)

    def differences(self, recorded: Settings | Mapping[str, Any], *, exact: bool = False) -> tuple[str, ...]:
        """Fields by which a result that was made with `recorded` is not what these settings ask for.

        recorded: settings or their description. exact: the method was the exact one, which draws nothing at random and
        has no tolerance. A field that only one of the two has is a difference, unless it never decides the result.
        """
        now, known = self.describe(), self.options()
        then = recorded.describe() if isinstance(recorded, Settings) else dict(recorded)
        then = {name: value for name, value in _unstated(known).items() if name in now} | then
        alone = [name for name in (*now, *then) if (name in now) != (name in then)]
        alone = [name for name in alone if name not in known or known[name].decides != "never"]
        both = [name for name in now if name in then and not _agrees(known[name].decides, now[name], then[name], exact)]
        return (*dict.fromkeys(alone), *both)

    def gives_same_result(self, recorded: Settings | Mapping[str, Any], *, exact: bool = False) -> bool:
        """True if `differences` finds none."""
        return not self.differences(recorded, exact=exact)


def selection(settings: Settings | Mapping[str, Any]) -> dict[str, float]:
    """The rule by which components are kept, {"energy": 0.99} or {"rank": 3}, of settings or their description."""
    used = settings.describe() if isinstance(settings, Settings) else settings
    return {"energy": used["energy"]} if used["rank"] is None else {"rank": used["rank"]}


def _check_names(given: Collection[str], known: Collection[str], besides: Collection[str] = ()) -> None:
    if unknown := sorted(set(given) - set(known)):
        others = f"; other keywords are {', '.join(besides)}" if besides else ""
        raise IFIMError(f"unknown setting {', '.join(map(repr, unknown))}: the settings are {', '.join(known)}{others}.")


def _unstated(known: Mapping[str, Option]) -> dict[str, Any]:
    """What the descriptions of earlier versions mean that do not state a field."""
    return {name: one.absent for name, one in known.items() if one.absent is not STATED}


def _described(value: Any) -> Any:
    if isinstance(value, (Head, Metric, AnswerMask, Family)):
        return value.describe()
    return [_described(each) for each in value] if isinstance(value, tuple) else value


def _agrees(decides: Decides, asked: Any, recorded: Any, exact: bool) -> bool:
    if decides == "never" or (decides == "approximate" and exact):
        return True
    if decides == "at least" and recorded is True:
        return True
    return bool(asked == recorded) and not _undescribed(asked)


def _undescribed(value: Any) -> bool:
    """True if a description holds a part that could not be described, and so differs from everything."""
    if isinstance(value, Mapping):
        return UNDESCRIBED in value or any(map(_undescribed, value.values()))
    return isinstance(value, list) and any(map(_undescribed, value))


def check_name(what: str, value: str, known: tuple[str, ...]) -> None:
    """Raise IFIMError unless `value` is one of the `known` names."""
    if value not in known:
        raise IFIMError(f"unknown {what} {value!r}: choose one of {', '.join(map(repr, known))}.")


def check_switches(settings: Settings) -> None:
    """Raise IFIMError for a field of True or False that is something else."""
    for name, one in settings.options().items():
        if one.kind is bool and not isinstance(getattr(settings, name), bool):
            raise IFIMError(f"{name}={getattr(settings, name)!r}: give True or False.")


def check_output_key(key: str | int | None) -> str | int | None:
    """The key, a number where it is one; raises IFIMError unless it is a name, a path ("heads.diagnosis"), a number or None."""
    if isinstance(key, bool) or not isinstance(key, (str, Integral, type(None))) or key == "":
        raise IFIMError(f"output_key={key!r}: give the name, path or number of the entry that holds the outputs.")
    if isinstance(key, str):
        return int(key) if key.removeprefix("-").isdecimal() else key
    return None if key is None else int(key)


def check_volume_tolerance(tolerance: str) -> str:
    """The tolerance of volumes; raises IFIMError unless it is a text such as "5 %", "0.5 ml" or "20 voxels"."""
    VolumeTolerance.parsed(tolerance)
    return tolerance


def check_answer(answer: str | int | None) -> str | int | None:
    """The name or number of a class or label; raises IFIMError unless it is a text, a whole number from 0 on, or None."""
    if answer is None or (isinstance(answer, str) and answer.strip()):
        return answer
    if isinstance(answer, bool) or not isinstance(answer, Integral) or answer < 0:
        raise IFIMError(f"answer={answer!r}: give the name of a class or label, or its number, from 0 on.")
    return int(answer)


def check_tolerance(tolerance: float) -> float:
    """The tolerance as a plain number; raises IFIMError unless 0 < tolerance < 1."""
    value = float(tolerance) if isinstance(tolerance, Real) and not isinstance(tolerance, bool) else 0.0
    if not 0.0 < value < 1.0:
        raise IFIMError(f"tolerance={tolerance!r} is a relative error of eigenvalues: give a number above 0 and below 1.")
    return value


def check_probes(probes: int) -> int:
    """The number of probes as a plain number; raises IFIMError unless it is a whole number from 2 on."""
    if isinstance(probes, bool) or not isinstance(probes, Integral) or probes < 2:
        raise IFIMError(f"probes={probes!r}: give a whole number from 2 on; one alone has no spread to tell its error by.")
    return int(probes)


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
