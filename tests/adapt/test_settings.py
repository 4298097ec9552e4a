"""The settings of a case: checked, described, compared, and taken whole by what MONAI's configs build."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, get_type_hints

import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, NormalizeIntensity
from torch import nn

from monai_ifim.adapt import IFIMDecompose, IFIMHandler, IFIMInferer, SaveIFIM, SaveIFIMd, ScannerSpace
from monai_ifim.adapt.settings import CaseSettings, CaseShortcuts, FileShortcuts
from monai_ifim.core import GaussianHead, IFIMError
from monai_ifim.core.settings import Settings
from monai_ifim.io import OutputError
from monai_ifim.options import CONTENTS, FILES, OPTIONS

SCANNER: dict[str, Any] = {"space": "scanner"}
OTHERS: dict[str, tuple[dict[str, Any], Any]] = {  # settings under which another value of the field than the default is right
    "space": ({}, "network"),
    "statistics": (SCANNER, "freeze"),
    "resolution": (SCANNER, 2.5),
    "channels": ({}, "each"),
    "deterministic": ({}, True),
    "contents": ({}, ("low",)),
    "dicom_pm": ({}, True),
    "scene_bundle": ({}, True),
    "case_names": ({}, "hash"),
}


def test_every_field_has_an_option_and_a_keyword() -> None:
    assert set(CaseSettings.options()) == set(OPTIONS) == set(get_type_hints(CaseShortcuts))
    assert set(FILES) == set(get_type_hints(FileShortcuts))
    assert set(OTHERS) == set(CaseSettings.options()) - set(Settings.options())
    for name, option in CaseSettings.options().items():
        assert getattr(CaseSettings(), name) == option.default


@pytest.mark.parametrize("name", OTHERS)
def test_a_field_of_a_case_is_made_again_and_told_apart(name: str) -> None:
    under, value = OTHERS[name]
    plain = CaseSettings(**under)
    settings = replace(plain, **{name: value})
    description = json.loads(json.dumps(settings.describe(), allow_nan=False))
    assert CaseSettings.from_description(description).describe() == settings.describe()
    if name == "case_names":  # other files of the same result
        assert settings.gives_same_result(plain)
        return
    assert settings.differences(plain) == (name,)
    no_harm = name in ("deterministic", "dicom_pm", "scene_bundle")  # what was made then holds what is asked for now
    assert plain.differences(settings) == (() if no_harm else (name,))


@pytest.mark.parametrize(
    ("contents", "kept"),
    [("low,high", ("high", "low")), (["sensitivity", "low"], ("low", "sensitivity")), (" high ,", ("high",)), ((), ()), ("", ())],
)
def test_contents_are_text_or_names_in_any_order(contents: Any, kept: tuple[str, ...]) -> None:
    assert CaseSettings(contents=contents).contents == kept
    assert CaseSettings().contents == CONTENTS


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"space": "scan"}, "unknown space 'scan': choose one of 'native'"),
        ({"contents": "halves"}, "halves"),
        ({"statistics": "freeze"}, "belong to the space 'scanner'"),
        ({"space": "scanner", "resolution": 1.0, "metric": 2.0}, "two input metrics"),
        ({"dicom_pm": 1}, "dicom_pm=1: give True or False"),
        ({"case_names": "uid"}, "unknown case_names 'uid': choose one of 'path', 'hash'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(IFIMError, match=reason):
        CaseSettings(**settings)


def test_a_saved_case_states_how_it_was_computed_and_what_was_written() -> None:
    made = Settings("gaussian", rank=2).describe()
    written = CaseSettings(energy=0.5, contents="low", space="network").written(made)
    assert written == CaseSettings("gaussian", rank=2, contents="low", space="network").describe()


UNKNOWN: dict[str, tuple[Callable[..., Any], str]] = {
    "handler": (lambda **more: IFIMHandler(**more), "head, output_key"),
    "inferer": (lambda **more: IFIMInferer(**more), "head, output_key"),
    "transform": (lambda **more: IFIMDecompose(nn.Identity(), **more), "head, output_key"),
    "array writer": (lambda **more: SaveIFIM("out", **more), "space, contents, dicom_pm, scene_bundle"),
    "dictionary writer": (lambda **more: SaveIFIMd("pred", "out", **more), "space, contents, dicom_pm, scene_bundle"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_keyword_is_refused_with_those_that_there_are(name: str) -> None:
    make, known = UNKNOWN[name]
    with pytest.raises(IFIMError, match=f"unknown setting 'enegry': the settings are {known}"):
        make(enegry=0.9)


@pytest.mark.parametrize("name", ["array writer", "dictionary writer"])
def test_a_writer_takes_no_keyword_that_it_could_not_heed(name: str) -> None:
    with pytest.raises(IFIMError, match="unknown setting 'energy'"):
        UNKNOWN[name][0](energy=0.9)


def test_settings_go_in_whole_and_shortcuts_in_their_place() -> None:
    given = CaseSettings(GaussianHead(2.0), rank=3, space="network", contents=("low",))
    handler = IFIMHandler(given, rank=1, output_dir="out")
    assert handler.settings == replace(given, rank=1)
    assert handler.writer is not None
    assert handler.writer.settings == replace(given, rank=1)
    assert IFIMInferer(given, seed=4).settings == replace(given, seed=4)
    assert IFIMInferer(Settings("bernoulli")).settings == Settings("bernoulli")
    assert SaveIFIM("out", given, contents="high").settings == replace(given, contents=("high",))


def test_a_handler_in_scanner_space_takes_its_settings_from_one_place() -> None:
    pipeline = Compose([NormalizeIntensity()])
    by_settings = IFIMHandler(space="scanner", resolution=2.0, statistics="freeze", preprocessing=pipeline)
    by_scanner = IFIMHandler(scanner=ScannerSpace(pipeline, "freeze", 2.0))
    assert by_settings.settings == by_scanner.settings
    assert (by_settings.settings.space, by_settings.settings.resolution) == ("scanner", 2.0)
    assert isinstance(by_settings.instead, ScannerSpace)
    assert (by_settings.instead.resolution, by_settings.instead.statistics) == (2.0, "freeze")
    with pytest.raises(IFIMError, match=r"resolution=3.0 in the settings and 2.0 in scanner=: give it in one place"):
        IFIMHandler(space="scanner", resolution=3.0, scanner=ScannerSpace(pipeline, resolution=2.0))


def test_keywords_come_from_a_bundle_s_config() -> None:
    config: Mapping[str, Any] = {
        "_target_": "monai_ifim.adapt.IFIMHandler", "head": "bernoulli", "energy": 0.9, "output_key": 1, "space": "network",
        "contents": ["low", "high"], "dicom_pm": True, "output_dir": "out", "class_names": ["a", "b"],
    }  # fmt: skip
    parser = ConfigParser({"ifim": config})
    handler = parser.get_parsed_content("ifim")
    wanted = CaseSettings("bernoulli", energy=0.9, output_key=1, space="network", contents=("high", "low"), dicom_pm=True)
    assert handler.settings == wanted
    assert handler.writer.model.class_names == ("a", "b")
    unknown = ConfigParser({"ifim": dict(config) | {"force": 1}})
    with pytest.raises(Exception, match="unknown setting 'force'|Failed to instantiate"):
        unknown.get_parsed_content("ifim")


def test_deterministic_algorithms_are_on_while_an_inferer_computes() -> None:
    seen: list[bool] = []

    class Watching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.are_deterministic_algorithms_enabled())
            return x.flatten(1)[:, :3]

    for wanted in (True, False):
        seen.clear()
        IFIMInferer(CaseSettings(deterministic=wanted))(torch.rand(1, 1, 4, 4), Watching().eval())
        assert set(seen) == {wanted}
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_space_that_is_none_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="unknown space 'mars'"):
        SaveIFIM("out", space="mars")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["handler", "array writer", "dictionary writer"])
def test_a_misspelt_argument_that_is_no_setting_is_refused_with_those_names_too(name: str) -> None:
    with pytest.raises(IFIMError, match="unknown setting 'class_nmes': .*; other keywords are .*class_names"):
        UNKNOWN[name][0](class_nmes=["one"])
