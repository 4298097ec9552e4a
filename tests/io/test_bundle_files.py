"""The hash of a bundle changes with every file that decides a result, and with no other."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from monai_ifim.io import digests, identify_bundle

CONFIG = {
    "imports": ["$import ward_network"],
    "network_def": {"_target_": "scripts.net.Net", "table": "$torch.load(@bundle_root + '/extra/atlas.pt')"},
    "preprocessing": {"_target_": "monai.transforms.Compose", "transforms": [{"_target_": "ward_steps.own.Step"}]},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle with scripts, and two local modules, a file and a package, that its config names."""
    root = tmp_path / "bundle"
    files = {
        "configs/inference.json": json.dumps(CONFIG),
        "configs/metadata.json": '{"version": "1", "network_data_format": {"outputs": {"pred": {"channel_def": {"0": "well"}}}}}',
        "configs/train.json": "{}",
        "models/model.pt": "weights",
        "models/fold2.pt": "more weights",
        "scripts/__init__.py": "",
        "scripts/net.py": "class Net: ...",
        "further/deep/steps.py": "",
        "extra/atlas.pt": "an atlas",
        "docs/README.md": "words",
        "docs/conf.py": "words",
        "LICENSE": "words",
        "eval/results.json": "{}",
        "data/scan.nii.gz": "voxels",
        "scripts/__pycache__/net.cpython-313.pyc": "compiled",
        "scripts/.net.py.swp": "an editor's",
        ".git/HEAD": "ref",
        "venv/pyvenv.cfg": "",
        "venv/lib/thing.py": "",
    }
    for name, text in files.items():
        write(root / name, text)
    write(tmp_path / "lib" / "ward_network.py", "import torch")
    write(tmp_path / "lib" / "ward_steps" / "__init__.py", "")
    write(tmp_path / "lib" / "ward_steps" / "own.py", "class Step: ...")
    elsewhere = [place for place in sys.path if not (Path(place) / "scripts").is_dir()]  # not in bundles that other tests loaded
    monkeypatch.setattr(sys, "path", elsewhere)
    monkeypatch.delitem(sys.modules, "scripts", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


DECIDING = (
    "bundle/configs/inference.json", "bundle/configs/metadata.json", "bundle/configs/train.json", "bundle/models/model.pt",
    "bundle/models/fold2.pt", "bundle/scripts/__init__.py", "bundle/scripts/net.py", "bundle/further/deep/steps.py",
    "bundle/extra/atlas.pt", "lib/ward_network.py", "lib/ward_steps/__init__.py", "lib/ward_steps/own.py",
)  # fmt: skip
IDLE = (
    "bundle/docs/README.md", "bundle/docs/conf.py", "bundle/LICENSE", "bundle/eval/results.json", "bundle/data/scan.nii.gz",
    "bundle/scripts/__pycache__/net.cpython-313.pyc", "bundle/scripts/.net.py.swp", "bundle/.git/HEAD",
    "bundle/venv/lib/thing.py",
)  # fmt: skip


@pytest.mark.parametrize("name", DECIDING)
def test_a_change_of_a_file_that_decides_changes_the_hash(name: str, root: Path) -> None:
    before = identify_bundle(root)
    path = root.parent / name
    path.write_bytes(path.read_bytes() + b"\n")
    after = identify_bundle(root)
    assert after.bundle_sha256 != before.bundle_sha256
    changed = [key for key in before.files if before.files[key] != after.files.get(key)]
    assert changed == [name.replace("bundle/", "").replace("lib/", "outside/")]


@pytest.mark.parametrize("name", IDLE)
def test_a_change_of_another_file_does_not(name: str, root: Path) -> None:
    before = identify_bundle(root)
    (root.parent / name).write_text("something else")
    assert identify_bundle(root) == before


def test_a_new_and_a_lost_script_change_the_hash(root: Path) -> None:
    before = identify_bundle(root).bundle_sha256
    (root / "scripts" / "new.py").write_text("")
    assert identify_bundle(root).bundle_sha256 != before
    (root / "scripts" / "new.py").unlink()
    assert identify_bundle(root).bundle_sha256 == before
    (root / "scripts" / "net.py").rename(root / "scripts" / "other.py")
    assert identify_bundle(root).bundle_sha256 != before


def test_the_hash_is_that_of_the_lines_of_sha256sum(root: Path) -> None:
    identity = identify_bundle(root)
    places = {name: root.parent / "lib" / name[8:] if name.startswith("outside/") else root / name for name in identity.files}
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in sorted(places.items())]
    assert identity.bundle_sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert {str(path.relative_to(root.parent)) for path in places.values()} == set(DECIDING)
    assert set(identity.own_files) == {name for name in identity.files if not name.startswith("outside/")}


def test_links_are_followed_wherever_they_lead_and_never_round_in_circles(root: Path, tmp_path: Path) -> None:
    """As a cache of Hugging Face keeps weights."""
    before = identify_bundle(root).bundle_sha256
    blob = tmp_path / "blobs" / "abc"
    blob.parent.mkdir()
    (root / "models" / "model.pt").rename(blob)
    (root / "models" / "model.pt").symlink_to(blob)
    (root / "scripts").rename(tmp_path / "scripts")
    (root / "scripts").symlink_to(tmp_path / "scripts")
    (root / "configs" / "again").symlink_to(root / "configs")
    assert identify_bundle(root).bundle_sha256 == before
    blob.write_text("other weights")
    assert identify_bundle(root).bundle_sha256 != before


def test_the_place_of_the_bundle_and_how_it_is_named_do_not_count(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identify_bundle(root).bundle_sha256
    monkeypatch.chdir(root.parent)
    assert identify_bundle(Path("bundle")).bundle_sha256 == before
    moved = root.rename(root.with_name("moved"))
    assert identify_bundle(moved).bundle_sha256 == before


def test_a_module_that_hides_one_of_the_bundle_counts(root: Path, tmp_path: Path) -> None:
    before = identify_bundle(root).bundle_sha256
    write(tmp_path / "lib" / "scripts" / "net.py", "class Net: evil = True")
    write(tmp_path / "lib" / "scripts" / "__init__.py", "")
    after = identify_bundle(root)
    assert after.bundle_sha256 != before
    assert "outside/scripts/net.py" in after.files
    assert "scripts" not in sys.modules


def test_words_of_a_config_that_are_called_like_a_folder_do_not_count(root: Path, tmp_path: Path) -> None:
    """Of where the program is started, or of the program that uses this one."""
    for name in ("evaluator", "run", "note"):
        write(tmp_path / "lib" / name / "of_somebody_else.py", "")
    config = root / "configs" / "inference.json"
    entries = json.loads(config.read_text()) | {"evaluator": {"note": "run.it or note.that"}, "run": ["$@evaluator.run()"]}
    config.write_text(json.dumps(entries))
    assert not [name for name in identify_bundle(root).files if "of_somebody_else" in name]
    entries["run"].append("$[note.step for _ in range(3)]")
    config.write_text(json.dumps(entries))
    assert [name for name in identify_bundle(root).files if "of_somebody_else" in name] == ["outside/of_somebody_else.py"]


def test_a_file_is_read_once_however_often_it_is_asked_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(digests, "sha256_of_file", counting(read))
    old = 10**9
    for path in root.rglob("*"):
        os.utime(path, (old, old))
    monkeypatch.setattr(digests.time, "time", lambda: os.stat(root).st_ctime + 60)  # a minute later
    for _ in range(3):
        identify_bundle(root)
    assert len(read) == len(set(read)) >= 11


def counting(read: list[Path]) -> Callable[[Path], str]:
    whole = digests.sha256_of_file

    def count(path: Path) -> str:
        read.append(path)
        return whole(path)

    return count
