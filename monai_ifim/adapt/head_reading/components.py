"""The components of a MONAI config (`_target_` entries, and calls in expressions) with their literal arguments.

Nothing is instantiated and no expression is run: a training config may name packages and data that are not there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import CommonKeys

UNKNOWN = object()  # a value that only running the config would tell
MOST_STEPS = 16  # references followed one after another
_SEPARATOR = re.compile(r"::|#")
_REFERENCE = re.compile(r"@([A-Za-z_]\w*(?:(?:::|#)\w+)*)")
_COMMON_KEY = re.compile(r"(?:[A-Za-z_]\w*\.)*CommonKeys\.([A-Z_]+)")
_SHOWN = ("sigmoid", "softmax", "other", "use_softmax", "argmax", "threshold", "to_onehot_y")

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class Component:
    """One component of a config: the file, its path of keys there, the last part of its target's name, and its arguments, which
    are UNKNOWN where they are not literal."""

    file: str
    path: Path_
    name: str
    arguments: Mapping[str, Any]

    @property
    def place(self) -> str:
        """For example "configs/inference.json: postprocessing[1] Activationsd(sigmoid=True)"."""
        shown = [f"{name}={self.arguments[name]}" for name in _SHOWN if self.says(name)]
        return f"{self.file}: {_readable(self.path)} {self.name}({', '.join(shown)})"

    @property
    def pipeline(self) -> Path_:
        """The path of the list of steps that it belongs to; its own where there is none."""
        return self.path[:-1] if self.path and isinstance(self.path[-1], int) else self.path

    def says(self, name: str) -> bool:
        """True if the argument is given, literal, and not switched off."""
        return self.arguments.get(name) not in (None, False, UNKNOWN)


def read_components(root: Path, file: str) -> list[Component]:
    """The components of a config file of the bundle in `root`, in their order; none if the file cannot be read."""
    try:
        content = ConfigParser.load_config_file(str(root / file))
    except Exception:  # what parses it raises errors of its own; loading the bundle tells those of the inference config
        return []
    return components_of(content, file) if isinstance(content, dict) else []


def components_of(content: dict[str, Any], file: str) -> list[Component]:
    """The components of a config's content, in their order; disabled ones are left out."""
    parser = ConfigParser()
    with suppress(Exception):  # a macro of a file that is not there
        parser.read_config(content)
        parser.resolve_macro_and_relative_ids()
        content = parser.get()
    found = [Component(file, path, name, arguments) for path, name, arguments in _walk(content, (), _Values(content))]
    return [one for one in found if not one.says("_disabled_")]


class _Values:
    """Literal values of a config's entries; references are followed."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    def of(self, raw: Any, steps: int = MOST_STEPS) -> Any:
        """The value; UNKNOWN where it is not literal."""
        if isinstance(raw, (list, tuple)):
            return [self.of(item, steps) for item in raw]
        if not isinstance(raw, str) or steps == 0:
            return UNKNOWN if isinstance(raw, (str, dict)) else raw
        if raw.startswith("$"):
            return self._expression(raw[1:].strip(), steps)
        whole = _REFERENCE.fullmatch(raw)
        return self._entry(whole[1], steps) if whole else raw

    def _entry(self, name: str, steps: int) -> Any:
        entry: Any = self._content
        for step in _SEPARATOR.split(name):
            if isinstance(entry, Mapping) and step in entry:
                entry = entry[step]
            elif isinstance(entry, Sequence) and not isinstance(entry, str) and step.isdecimal() and int(step) < len(entry):
                entry = entry[int(step)]
            else:
                return UNKNOWN
        return self.of(entry, steps - 1)

    def _expression(self, text: str, steps: int) -> Any:
        """A literal, a name of MONAI's CommonKeys, or a literal made of references; nothing is run."""
        common = _COMMON_KEY.fullmatch(text)
        if common is not None:
            return str(getattr(CommonKeys, common[1], UNKNOWN))
        values = {name: self._entry(name, steps) for name in _REFERENCE.findall(text)}
        if any(value is UNKNOWN for value in values.values()):
            return UNKNOWN
        try:
            return ast.literal_eval(_REFERENCE.sub(lambda found: repr(values[found[1]]), text))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return UNKNOWN


def _walk(entry: Any, path: Path_, values: _Values) -> Iterator[tuple[Path_, str, dict[str, Any]]]:
    if isinstance(entry, Mapping):
        target = entry.get("_target_")
        if isinstance(target, str) and not target.startswith(("$", "@")):
            yield path, target.rpartition(".")[2], {str(name): values.of(value) for name, value in entry.items()}
        for name, value in entry.items():
            yield from _walk(value, (*path, str(name)), values)
    elif isinstance(entry, list):
        for number, value in enumerate(entry):
            yield from _walk(value, (*path, number), values)
    elif isinstance(entry, str) and entry.startswith("$"):
        for name, arguments in _calls(entry[1:].strip()):
            yield path, name, {key: values.of(value) for key, value in arguments.items()}


def _calls(expression: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names of what an expression calls, with the literal arguments that it names."""
    text = _REFERENCE.sub(lambda found: f"'{found[0]}'", expression)  # a reference becomes its text, which is then followed
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
            name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            yield name, {keyword.arg: _literal(keyword.value) for keyword in node.keywords if keyword.arg}


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, MemoryError, RecursionError):
        return UNKNOWN


def _readable(path: Path_) -> str:
    """A path of keys as people write it: the list of a Compose is not named."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step != "transforms" or not text:
            text += f"#{step}" if text else step
    return text
