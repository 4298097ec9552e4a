"""The check that a preprocessing gives the same image twice: chance may hide in any function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from monai_ifim.adapt.input_steps import IMAGE, InputSteps
from monai_ifim.adapt.scanner.step_checks import differ
from monai_ifim.io import InputError


class RepeatCheck:
    """Runs the steps after reading once more for the first image that it is given."""

    def __init__(self) -> None:
        self.done = False

    def copied(self, data: Mapping[str, Any]) -> dict[str, Any] | None:
        """The data for the second run, made before the first, which may write into it; None once the check is done."""
        return None if self.done else _copy(data)

    def check(self, steps: InputSteps, again: dict[str, Any] | None, image: Any, bundle: str) -> None:
        """Raise InputError, naming the step, if a second run gives another image; does nothing if `again` is None."""
        if again is None:
            return
        kept = _copy(again)
        if _differ(image, steps(again, start=steps.reading)[steps.input_key or IMAGE]):
            raise InputError(
                f"bundle {bundle}: {_culprit(steps, kept)} gives another image each time, so the network's input is not defined: "
                "take the chance out of it, or remove it."
            )
        self.done = True


def missing_entry(error: BaseException) -> str | None:
    """What a KeyError among the causes of an error says; None if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, KeyError):
        found = found.__cause__
    return None if found is None or not found.args else f"'{str(found.args[0])[:200]}'"


def _culprit(steps: InputSteps, data: dict[str, Any]) -> str:
    """The first step whose output differs between two runs."""
    for number in range(steps.reading, len(steps.compose.transforms)):
        one, other = (steps(_copy(data), start=number, end=number + 1) for _ in range(2))
        if any(_differ(one[key], other.get(key)) for key in one):
            return f"{type(steps.compose.transforms[number]).__name__} in the preprocessing"
        data = one
    return "the preprocessing"


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in data.items()}


def _differ(one: Any, other: Any) -> bool:
    """True for two images that differ by more than rounding; NaN may stand at the same places."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    one, other = (image.as_subclass(Tensor) for image in (one, other))
    if one.shape != other.shape or (one.dtype == other.dtype and bool((one.isnan() != other.isnan()).any())):
        return True
    return differ(one.nan_to_num(), other.nan_to_num())
