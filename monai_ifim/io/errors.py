"""What `io` raises: what, where, the cure."""

from __future__ import annotations

from monai_ifim.core.errors import IFIMError


class InputError(IFIMError):
    """An input file that cannot be decomposed as it stands."""


class GeometryError(IFIMError):
    """A world frame that the written files could not hold truly."""


class OutputError(IFIMError):
    """Results that cannot be written as asked."""
