"""Bundles and configs that come with the package, by name or path."""

from __future__ import annotations

from pathlib import Path

import pytest

from monai_ifim.io.errors import InputError
from monai_ifim.io.installation import bundles_folder, configs_folder, resolve_bundle, resolve_experiment


def test_every_bundle_that_is_shipped_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {path.parent.parent.name for path in bundles_folder().glob("*/configs/metadata.json")}
    assert {"mednist_classification", "lumpy_lesion_detection_3d", "lumpy_segmentation_3d"} == names
    assert {resolve_bundle(name).resolve() for name in names} == {(bundles_folder() / name).resolve() for name in names}


def test_a_folder_of_the_users_own_comes_before_a_shipped_bundle_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mednist_classification").mkdir()
    assert resolve_bundle("mednist_classification").resolve() == (bundles_folder() / "mednist_classification").resolve()
    (tmp_path / "mednist_classification" / "configs").mkdir()
    assert resolve_bundle("mednist_classification").resolve() == tmp_path.resolve() / "mednist_classification"


def test_a_bundle_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match=r"no_such: no bundle there .* nor one of .*lumpy_lesion_detection_3d.*mednist"):
        resolve_bundle("no_such")


def test_every_experiment_that_is_shipped_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    files = sorted((configs_folder() / "evaluation").glob("*.yaml"))
    assert files
    for file in files:
        assert resolve_experiment(file.stem) == resolve_experiment(str(file)) == file
    own = tmp_path / "own.yaml"
    own.write_text("name: own\n", encoding="utf-8")
    assert resolve_experiment(str(own)) == own
    with pytest.raises(InputError, match=rf"no_such: no such file, nor one of .*{files[0].stem}"):
        resolve_experiment("no_such")
