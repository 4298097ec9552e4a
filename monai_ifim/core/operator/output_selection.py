"""Which of the tensors that a network returns holds the logits: by its path, or by its name where that is certain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from monai_ifim.core.errors import NetworkError

CERTAIN = "logits"  # a field of this name is taken before any other
NAMES = ("pred", "out", "output", "scores")  # taken where one of them alone can hold the logits
MOST_LISTED = 24  # entries in a message

Path = tuple[str | int, ...]
Leaf = tuple[Path, Tensor]


@dataclass
class OutputSelection:
    """The entry of a network's outputs that holds the logits.

    key: its name, number or path ("heads.diagnosis", "0.logits"), or None to find it. chosen: path of the entry that was read
    last; None before, and where the network returns one tensor.
    """

    key: str | int | None = None
    chosen: str | None = None

    def __call__(self, output: Any, image: Tensor, spatial: bool) -> Any:
        """The entry of `output` for images [B, channel, *spatial]; spatial: it is a map, else [B, C].

        Without a key that is a field called "logits", else the one field called as in NAMES, else the only tensor, else the
        first entry of a tuple or list where no other can be logits. Raises NetworkError, which lists the entries, where the
        key names none of them or where none is certain.
        """
        looked_for = _LookedFor(image, spatial)
        if self.key is None and isinstance(output, Tensor) and not looked_for.is_stack(output):
            self.chosen = None
            return output
        value, path = (output, ()) if self.key is None else looked_for.at(output, self.key)
        if not isinstance(value, Tensor) or looked_for.is_stack(value):
            leaves = list(looked_for.leaves(value, path))
            if not leaves:
                return value
            path, value = looked_for.find(leaves, len(path))
        self.chosen = dotted(path)
        return value


@dataclass(frozen=True)
class _LookedFor:
    """What the logits of the images [B, channel, *spatial] look like: a map of their size if `spatial`, else [B] or [B, C]."""

    image: Tensor
    spatial: bool

    def fits(self, value: Tensor) -> bool:
        """True if a tensor can be the logits; further axes of length one do not matter."""
        if value.layout != torch.strided or not value.is_floating_point() or value.ndim == 0:
            return False
        if value.shape[0] != self.image.shape[0]:
            return False
        if self.spatial:
            return value.ndim == self.image.ndim and value.shape[2:] == self.image.shape[2:]
        return all(length == 1 for length in value.shape[2:])

    def is_stack(self, value: Any) -> bool:
        """True for maps stacked along the second axis, [B, n, C, *spatial], as deep supervision makes them."""
        return self.spatial and isinstance(value, Tensor) and value.ndim == self.image.ndim + 1

    def entries(self, value: Any) -> dict[str | int, Any]:
        """Entries of a mapping, named tuple, dataclass, tuple, list, stack of maps, or object with attributes."""
        if self.is_stack(value):
            return {number: value.select(1, number) for number in range(value.shape[1])}
        return entries_of(value)

    def leaves(self, value: Any, path: Path = (), above: tuple[int, ...] = ()) -> Iterator[Leaf]:
        """Every tensor of a nested output with its path."""
        if isinstance(value, Tensor) and not self.is_stack(value):
            yield path, value
        elif id(value) not in above:
            for name, entry in self.entries(value).items():
                yield from self.leaves(entry, (*path, name), (*above, id(value)))

    def at(self, output: Any, key: str | int) -> tuple[Any, Path]:
        """The entry at a key: a name as it stands, a number, or a path of names and numbers with dots between them."""
        path: Path = ()
        value, rest = output, str(key)
        while rest:
            entries = self.entries(value)
            name, text = _first_step(list(entries), rest, numbered=not isinstance(value, Mapping))
            if name is None:
                raise self._without_entry(output, key)
            value, path, rest = entries[name], (*path, name), rest[len(text) :].removeprefix(".")
        return value, path

    def _without_entry(self, output: Any, key: str | int) -> NetworkError:
        if isinstance(output, Tensor) and not self.is_stack(output):
            return NetworkError(f"output_key={key!r}, but the network returns one tensor, {shape_of(output)}: leave it out.")
        listed = _listed(list(self.leaves(output)))
        return NetworkError(f"output_key={key!r} is none of the network's outputs; name one of {listed}.")

    def find(self, leaves: list[Leaf], start: int) -> Leaf:
        """The entry that is certain to be the logits; start: length of the path that the key gave."""
        if len(leaves) == 1:
            return leaves[0]
        for names in ((CERTAIN,), NAMES):
            named = [leaf for leaf in leaves if _place_of_name(leaf[0], names, start) is not None]
            if named:
                return self._of_name(named, names, leaves, start)
        fitting = [leaf for leaf in leaves if self.fits(leaf[1])]
        if len(fitting) == 1 and all(isinstance(step, int) for step in fitting[0][0][start:]):
            path, value = fitting[0]
            if not any(path[start:]) or (self.spatial and _is_pyramid(leaves, value)):
                return path, value
        raise _uncertain(leaves)

    def _of_name(self, named: list[Leaf], names: tuple[str, ...], leaves: list[Leaf], start: int) -> Leaf:
        """The one entry below a name that can be the logits: all that the name holds, or the first of a tuple."""
        places = {path: _place_of_name(path, names, start) or 0 for path, _ in named}
        possible = [leaf for leaf in named if self.fits(leaf[1])]
        nearest = [leaf for leaf in possible if places[leaf[0]] == min(places[path] for path, _ in possible)]
        if len(nearest) == 1:
            path = nearest[0][0]
            end = places[path] + 1
            alone = sum(other[:end] == path[:end] for other, _ in named) == 1
            if alone or all(step == 0 for step in path[end:]):
                return nearest[0]
        raise _uncertain(leaves)


def entries_of(value: Any) -> dict[str | int, Any]:
    """Entries of a container by name or number; none of a tensor, text or class."""
    if value is None or isinstance(value, (Tensor, str, bytes, type)):
        return {}
    if isinstance(value, Mapping):  # the outputs of transformers among them
        return dict(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    if isinstance(value, (tuple, list)):
        return dict(enumerate(value))
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return {name: entry for name, entry in getattr(value, "__dict__", {}).items() if not name.startswith("_")}


def shape_of(value: Tensor) -> str:
    """A tensor in a message."""
    layout = "" if value.layout == torch.strided else f" {str(value.layout).removeprefix('torch.')}"
    return f"tensor {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}{layout}"


def dotted(path: Path) -> str:
    """A path as `output_key` takes it."""
    return ".".join(map(str, path))


def _first_step(names: list[str | int], rest: str, numbered: bool) -> tuple[str | int | None, str]:
    """The entry that the beginning of a path names, the longest name first, and the text that names it.

    numbered: entries may be named by their place too, from the end with a minus sign.
    """
    known = {str(name): name for name in names}
    fitting = [text for text in known if text and (rest == text or rest.startswith(f"{text}."))]
    if fitting:
        text = max(fitting, key=len)
        return known[text], text
    text = rest.split(".", 1)[0]
    if numbered and text.removeprefix("-").isdecimal() and -len(names) <= int(text) < len(names):
        return names[int(text)], text
    return None, text


def _place_of_name(path: Path, names: tuple[str, ...], start: int) -> int | None:
    """Where the last of these names stands in a path from `start` on; None without one."""
    return next((place for place in range(len(path) - 1, start - 1, -1) if str(path[place]).lower() in names), None)


def _is_pyramid(leaves: list[Leaf], finest: Tensor) -> bool:
    """True for maps of one kind at several sizes, as deep supervision makes them."""
    return all(value.ndim == finest.ndim and value.shape[:2] == finest.shape[:2] for _, value in leaves)


def _uncertain(leaves: list[Leaf]) -> NetworkError:
    return NetworkError(
        "the network returns several outputs, and none is certain to be the logits: name it with output_key, one of "
        f"{_listed(leaves)}."
    )


def _listed(leaves: list[Leaf]) -> str:
    """Entries by path, with shapes and dtypes."""
    entries = [f"{dotted(path)!r}: {shape_of(value)}" for path, value in leaves]
    more = f" and {len(entries) - MOST_LISTED} more" if len(entries) > MOST_LISTED else ""
    return f"{', '.join(entries[:MOST_LISTED]) or 'no tensor at all'}{more}"
