"""Packages that only the zoo needs, in a folder of their own: see requirements.txt.

They stay out of the environment of the other tests. torchvision from the Python Package Index cannot be loaded beside a CPU
build of PyTorch, and packages that find it installed there, such as torchmetrics, then fail to load too.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import torch

FOLDER = "IFIM_ZOO_PACKAGES"  # environment variable
USERS = (  # modules of monai.networks, and their name for torchvision.models
    ("nets.milmodel", "models"),
    ("nets.torchvision_fc", "models"),
    ("blocks.backbone_fpn_utils", "torchvision_models"),
)
_DECLARED: list[torch.library.Library] = []  # declarations live as long as their library


def folder() -> Path | None:
    """The folder that the environment variable names."""
    named = os.environ.get(FOLDER)
    return Path(named) if named else None


@contextmanager
def available() -> Iterator[None]:
    """Context in which timm, transformers and torchvision can be imported; nothing is fetched from a hub."""
    place = folder()
    if place is None:
        raise RuntimeError(f"{FOLDER} does not name the folder of timm, transformers and torchvision")
    with mock.patch.object(sys, "path", [*sys.path, str(place)]), mock.patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
        _load_torchvision(place / "torchvision")
        yield


@contextmanager
def torchvision_in_monai() -> Iterator[None]:
    """Context in which MONAI's networks that are made of torchvision's find it, though MONAI was imported without."""
    with available():
        models = importlib.import_module("torchvision.models")
        with ExitStack() as stack:
            for module, name in USERS:
                stack.enter_context(mock.patch.object(importlib.import_module(f"monai.networks.{module}"), name, models))
            yield


def _load_torchvision(package: Path) -> None:
    """Import torchvision; where its compiled operators do not fit this PyTorch, declare them: no network here calls one."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if _DECLARED or "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        _DECLARED.append(library)
        texts = [file.read_text(encoding="utf-8") for file in package.glob("_*registrations.py")]
        for name in sorted(set(re.findall(r"torchvision::(\w+)", "".join(texts)))):
            library.define(f"{name}(Tensor x) -> Tensor")
        importlib.import_module("torchvision")
