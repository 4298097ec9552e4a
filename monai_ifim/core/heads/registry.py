"""Heads by name, and heads from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

from monai_ifim.core.errors import HeadError
from monai_ifim.core.heads.base import Head
from monai_ifim.options import HEAD_NAMES, HEADS


@cache
def head_class(name: str) -> type[Head]:
    """The class that a name of `options.HEADS` stands for; raises HeadError for any other name."""
    if name not in HEADS:
        raise HeadError(f"unknown head {name!r}: choose one of {', '.join(map(repr, HEAD_NAMES))}, or pass a Head.")
    module, _, kind = HEADS[name].partition(":")
    found: type[Head] = getattr(import_module(f"monai_ifim.core.heads.{module}"), kind)
    return found


def check_head(head: str | Head) -> None:
    """Raise HeadError unless `head` is a Head, "auto" or the name of one."""
    if not isinstance(head, (str, Head)):
        raise HeadError(f"head={head!r}: give one of {', '.join(map(repr, HEAD_NAMES))}, or a Head.")
    if isinstance(head, str) and head != "auto":
        head_class(head)


def head_from(description: str | Mapping[str, Any]) -> str | Head:
    """The head that a name, or what `Head.describe` gave, stands for.

    Raises HeadError for a head that is code of its maker's: its description does not hold what it computes.
    """
    if isinstance(description, str):
        check_head(description)
        return description
    if not isinstance(description, Mapping) or not isinstance(description.get("name"), str):
        raise HeadError(f"{description!r} describes no head.")
    parameters = {name: value for name, value in description.items() if name != "name"}
    if description["name"] not in HEADS or "class" in parameters:
        raise HeadError(
            f"head {description['name']!r} is a custom class, which a description cannot restore: pass the Head itself as head= "
            "in Python."
        )
    return head_class(description["name"]).from_description(parameters)
