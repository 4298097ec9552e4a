"""Options that several verbs have: declared once, alike everywhere, and all of them become settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import click
import nibabel as nib
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from monai_ifim.adapt.settings import CaseSettings
from monai_ifim.cli import options
from monai_ifim.cli.main import app
from monai_ifim.cli.options import GivenSettings, takes_settings
from monai_ifim.coordinates import Placement
from monai_ifim.core import NoiseLevel
from monai_ifim.core.heads.answer_mask import AnswerMask
from monai_ifim.io.limits import Limits
from monai_ifim.options import DECOMPOSITION, LIMITS, OPTIONS, SAME, Option

MASK = "mask.nii"
WORDS: dict[str, tuple[list[str], Any]] = {  # of the command line, and the value of the field that they stand for
    "head": (["--head", "gaussian"], "gaussian"),
    "output_key": (["--output-key", "logits"], "logits"),
    "energy": (["--energy", "0.5"], 0.5),
    "rank": (["--rank", "3"], 3),
    "method": (["--method", "adaptive"], "adaptive"),
    "tolerance": (["--tolerance", "0.01"], 0.01),
    "probes": (["--probes", "4"], 4),
    "memory_budget": (["--memory-budget", "2GiB"], 2 * 2**30),
    "metric": (["--noise", "2.5"], NoiseLevel(2.5)),
    "precision": (["--precision", "float64"], "float64"),
    "seed": (["--seed", "7"], 7),
    "locality": (["--no-locality"], False),
    "verify": (["--verify", "always"], "always"),
    "volume_tolerance": (["--volume-tolerance", "0.5 ml"], "0.5 ml"),
    "answer": (["--answer", "tumour"], "tumour"),
    "answer_mask": (["--answer-mask", MASK], torch.tensor([[[True], [False]]])),
    "coordinates": (["--coordinates", "placement"], (Placement(),)),
    "statistics": (["--space", "scanner", "--statistics", "freeze"], "freeze"),
    "resolution": (["--space", "scanner", "--resolution", "2.5"], 2.5),
    "channels": (["--channels", "each"], "each"),
    "deterministic": (["--deterministic"], True),
    "space": (["--space", "network"], "network"),
    "contents": (["--save", "low, high"], ("high", "low")),
    "dicom_pm": (["--dicom-pm"], True),
    "scene_bundle": (["--mrb"], True),
    "case_names": (["--case-names", "hash"], "hash"),
}
BY_DEFAULT = {"locality": True}  # on the command line otherwise than in Python


def settings_of(*words: str, verb: Any = None) -> CaseSettings:
    """What a verb that takes all settings makes of the words."""
    seen: list[CaseSettings] = []
    small = typer.Typer()

    @small.command()
    @takes_settings()
    def keep(*, given: GivenSettings) -> None:
        seen.append(given.settings())

    result = CliRunner().invoke(small, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen[0]


def verb(name: str) -> dict[str, click.Parameter]:
    command = typer.main.get_command(app)
    assert isinstance(command, click.Group) or hasattr(command, "commands")
    return {str(each.name): each for each in command.commands[name].params}  # type: ignore[attr-defined]


def test_every_field_has_words_here() -> None:
    assert set(WORDS) == set(CaseSettings.options())


@pytest.mark.parametrize("name", WORDS)
def test_every_field_is_set_from_the_command_line(name: str, tmp_path: Path) -> None:
    words, value = WORDS[name]
    nib.save(nib.Nifti1Image(np.array([[[2.0], [0.0]]], dtype=np.float32), np.eye(4)), tmp_path / MASK)
    found, plain = settings_of(*[str(tmp_path / MASK) if word == MASK else word for word in words]), settings_of()
    if isinstance(value, NoiseLevel):
        assert getattr(found, name).describe() == value.describe()
    elif isinstance(value, torch.Tensor):
        assert getattr(found, name).describe() == AnswerMask(value).describe()
    elif name == "coordinates":
        assert [each.describe() for each in found.coordinates] == [each.describe() for each in value]
    else:
        assert getattr(found, name) == value
    assert name in {*found.differences(plain), *plain.differences(found), "memory_budget", "verify", "case_names"}


def test_without_words_the_settings_are_those_of_python() -> None:
    assert settings_of() == CaseSettings(**BY_DEFAULT)


@pytest.mark.parametrize(("verb_name", "without"), [("decompose", set()), ("pacs", {"dicom_pm"})])
def test_verbs_that_decompose_have_every_setting(verb_name: str, without: set[str]) -> None:
    found = verb(verb_name)
    assert set(OPTIONS) - set(found) == without
    for name in set(OPTIONS) - without:
        one: Option = OPTIONS[name]
        assert found[name].help == one.help  # type: ignore[attr-defined]
        assert found[name].default == (one.default if one.command_default is SAME else one.command_default)


@pytest.mark.parametrize("verb_name", ["decompose", "pacs"])
def test_verbs_that_decompose_have_every_limit(verb_name: str) -> None:
    found = verb(verb_name)
    for name, one in LIMITS.items():
        assert (found[name].help, found[name].default) == (one.help, one.default)  # type: ignore[attr-defined]
    assert not set(LIMITS) & set(verb("check"))


def test_limits_of_the_command_line_are_those_of_the_run() -> None:
    values = {"max_voxels": 7, "max_bytes": 0, "max_seconds": 3}
    assert GivenSettings(values).limits == Limits(voxels=7, bytes=0, seconds=3)


def test_check_has_those_settings_that_a_network_is_probed_with() -> None:
    assert set(OPTIONS) & set(verb("check")) == set(DECOMPOSITION) - {"locality", "verify", "coordinates"}


def test_shared_options_are_the_same_in_every_verb() -> None:
    command = typer.main.get_command(app)
    helps: dict[str, set[tuple[str, ...]]] = {}
    shared = {"bundle", "device", "fix_geometry", "overwrite", "batch_size", *OPTIONS}
    for name in ("decompose", "pacs", "check"):
        for each in command.commands[name].params:  # type: ignore[attr-defined]
            if each.name in shared:
                helps.setdefault(str(each.name), set()).add((*each.opts, *each.secondary_opts, each.help))
    assert all(len(found) == 1 for found in helps.values()), helps


@pytest.mark.parametrize(
    ("words", "resolution"),
    [
        ([], None),
        (["--space", "scanner"], "network"),
        (["--space", "scanner", "--resolution", "0"], None),
        (["--space", "scanner", "--noise", "3"], None),
    ],
)
def test_changes_of_a_scan_are_as_coarse_as_the_network_s_voxels_unless_told_otherwise(
    words: list[str], resolution: str | None
) -> None:
    assert settings_of(*words).resolution == resolution


@pytest.mark.parametrize(("word", "key"), [("2", 2), ("-1", -1), ("logits", "logits"), ("2b", "2b"), ("0.logits", "0.logits")])
def test_an_entry_of_the_output_goes_by_name_number_or_path(word: str, key: str | int) -> None:
    assert settings_of("--output-key", word).output_key == key


def test_a_noise_map_is_read(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.full((3, 4, 5), 2.0, np.float32), np.eye(4)), tmp_path / "noise.nii.gz")
    metric = settings_of("--noise", str(tmp_path / "noise.nii.gz")).metric
    assert isinstance(metric, NoiseLevel)
    assert metric.sigma.shape == (1, 3, 4, 5)


def test_a_seed_below_zero_is_wrong_use() -> None:
    result = CliRunner().invoke(app, ["decompose", "x.nii", "--bundle", "b", "-o", "out", "--seed", "-1"])
    assert result.exit_code == 2
    assert "seed" in result.output


def test_a_new_option_needs_no_edit_of_a_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    """Declared once, it is on the command line, and the verb gets it among its settings."""
    added = {**OPTIONS, "force": Option(1.0, "How hard to try.", float)}
    monkeypatch.setattr(options, "OPTIONS", added)
    seen: list[Any] = []
    small = typer.Typer()

    @small.command()
    @takes_settings()
    def keep(name: Annotated[str, typer.Option()] = "x", *, given: GivenSettings) -> None:
        seen.append((name, given.values["force"]))

    assert "How hard to try." in " ".join(CliRunner().invoke(small, ["--help"]).output.replace("│", " ").split())
    CliRunner().invoke(small, ["--force", "2.5", "--name", "y"])
    assert seen == [("y", 2.5)]
