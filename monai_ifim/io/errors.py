"""What `io` raises: what, where, the cure."""

from __future__ import annotations

from monai_ifim.core.errors import IFIMError


class InputError(IFIMError):
    """An input file that cannot be decomposed as it stands."""


class GeometryError(IFIMError):
    """A world frame that the written files could not hold truly."""


class OutputError(IFIMError):
    """Results that cannot be written as asked."""


def innermost(error: BaseException) -> str:
    """What the first error of a chain says, in one line; readers put the place in their own source before it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line.rstrip(".") for line in lines if line and not line.endswith(":")), type(error).__name__)
