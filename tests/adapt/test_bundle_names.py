"""Short names of classes in a bundle's config."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from monai.transforms import Identityd

from monai_ifim.adapt.bundle import load_bundle

STEPS = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]


def test_a_short_name_is_found_in_a_module_that_was_loaded_after_another_bundle(
    tmp_path: Path, make_bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_bundle(make_bundle(tmp_path / "first", steps=STEPS))
    late = ModuleType("monai_of_somebody")
    late.SomebodysStepd = type("SomebodysStepd", (Identityd,), {"__module__": late.__name__})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, late.__name__, late)
    root = make_bundle(tmp_path / "second", steps=[*STEPS, {"_target_": "SomebodysStepd", "keys": "image"}])
    transforms = load_bundle(root).steps.compose.transforms
    assert "SomebodysStepd" in [type(step).__name__ for step in transforms]
