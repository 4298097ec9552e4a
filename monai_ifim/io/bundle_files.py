"""The files of a bundle that decide its results, each with its SHA-256.

These are: every file in configs/ (configs, metadata with class names) and in models/ (a config may load any of them by a name
that it computes); every Python file of the bundle; every file that the inference config names, wherever it lies; and the Python
files of modules that it names and that lie neither in the bundle nor in an installed package. Documentation, licences, results in
eval/, hidden files and compiled Python do not count. Installed packages count by their versions, which a sidecar states too.
"""

from __future__ import annotations

import ast
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import yaml  # type: ignore[import-untyped, unused-ignore]

from monai_ifim.io.digests import sha256_known

WHOLE = ("configs", "models")  # folders of which every file counts
NO_CODE = ("docs", "eval", "__pycache__", "site-packages")  # folders whose Python files do not count
OUTSIDE = "outside/"  # before the name of a file that lies elsewhere
LONGEST_PATH = 1000  # characters of a text that may be a path
_NAMED_FILE = re.compile(r"[^\s'\"%:,;(){}\[\]$=]*\.[^\s'\"%:,;(){}\[\]$=]+")
_REFERENCE = re.compile(r"[@%][\w:#.+]*")  # MONAI's reference to another entry of a config, in an expression


def hash_bundle_files(root: Path, config: Path | None) -> dict[str, str]:
    """SHA-256 of every file of the bundle in `root` that decides its results, by its name below `root`, or, of a file that lies
    elsewhere, by "outside/" and its name. config: its inference config. A file is read once in a process. Raises OSError."""
    root = root.absolute()
    files = {path.relative_to(root).as_posix(): path for path in _own_files(root)}
    if config is not None:
        text = config.read_text(encoding="utf-8", errors="replace")
        for path in (*_named_files(text, root), *_local_modules(_named_modules(text), root)):
            inside = path.is_relative_to(root)
            name = path.relative_to(root).as_posix() if inside else f"{OUTSIDE}{_below_its_module(path)}"
            while files.setdefault(name, path) != path:
                name += "+"  # another one of that name
    return {name: sha256_known(files[name]) for name in sorted(files)}


def _own_files(root: Path) -> Iterator[Path]:
    for path in _walk(root):
        *folders, _ = path.relative_to(root).parts
        code = path.suffix == ".py" and not set(folders) & set(NO_CODE)
        if code or (folders and folders[0] in WHOLE):
            yield path


def _walk(folder: Path) -> Iterator[Path]:
    """Files at and below a folder, without hidden ones and virtual environments; links are followed, each folder once."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(place)
        known, seen = (status.st_dev, status.st_ino) in seen, seen | {(status.st_dev, status.st_ino)}
        if known or "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (path for name in sorted(files) if not name.startswith(".") and (path := Path(place, name)).is_file())


def _named_files(text: str, root: Path) -> Iterator[Path]:
    """Files whose paths occur in the text of a config, absolute or below the bundle."""
    for named in dict.fromkeys(_NAMED_FILE.findall(text)):
        if len(named) <= LONGEST_PATH:
            for path in (Path(named), root / named.lstrip("/")):
                if path.is_absolute() and _is_file(path):
                    yield Path(os.path.normpath(path))


@lru_cache(maxsize=16)  # a run identifies its bundle several times
def _named_modules(text: str) -> tuple[str, ...]:
    """Modules that a config names: the first part of each `_target_`, and each name of an expression, which begins with "$".

    Other words, such as those of comments and the keys of entries, may be called like a folder that happens to be importable.
    """
    try:
        entries = [yaml.safe_load(text)]
    except (yaml.YAMLError, ValueError, RecursionError):  # loading the bundle says so
        return ()
    found: list[str] = []
    while entries:
        entry = entries.pop()
        if isinstance(entry, dict):
            target = entry.get("_target_")
            if isinstance(target, str) and "." in target and not target.startswith("$"):
                found.append(target.partition(".")[0])
            entries.extend(entry.values())
        elif isinstance(entry, list):
            entries.extend(entry)
        elif isinstance(entry, str) and entry.startswith("$"):
            found.extend(_names_in(_REFERENCE.sub("_", entry[1:]).strip()))
    return tuple(found)


def _names_in(expression: str) -> Iterator[str]:
    try:
        tree = ast.parse(expression)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # __import__("module")
            yield node.value.partition(".")[0]


def _local_modules(named: Iterable[str], root: Path) -> Iterator[Path]:
    """Python files of these modules, with all of their package, where that lies neither in the bundle nor among the installed
    packages."""
    for name in dict.fromkeys(named):
        if not name.isidentifier() or name in sys.stdlib_module_names or name == "monai_ifim":
            continue
        try:
            spec = find_spec(name)  # of a module without a parent: nothing is imported
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is None:
            continue
        if spec.submodule_search_locations is not None:
            places = [Path(place) for place in spec.submodule_search_locations]
            yield from (path for place in places if _is_local(place, root) for path in _walk(place) if path.suffix == ".py")
        elif spec.origin is not None and spec.origin.endswith(".py") and _is_local(Path(spec.origin), root):
            yield Path(spec.origin)


def _is_local(path: Path, root: Path) -> bool:
    installed = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    places = [Path(place).resolve() for place in [*installed, *site.getsitepackages(), site.getusersitepackages(), str(root)]]
    return path.exists() and not any(path.resolve().is_relative_to(place) for place in places)


def _below_its_module(path: Path) -> str:
    """The name of a file, with those of the packages that it lies in."""
    parts = [path.name]
    for folder in path.parents:
        if path.suffix != ".py" or not (folder / "__init__.py").is_file():
            break
        parts.append(folder.name)
    return "/".join(reversed(parts))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
