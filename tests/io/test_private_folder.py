"""A private folder of results is closed to everybody but its owner, with all that is in it, and nothing else is closed."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from monai_ifim.io import atomic
from monai_ifim.io.errors import OutputError
from monai_ifim.io.private_folder import make_private


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Results of a case, a table and what was pulled, open to all."""
    folder = tmp_path / "out"
    for name in ("a/a_ifim.json", "a/a_ifim_high.nii.gz", "b/.ifim-unfinished", "cases.csv", "dicom/1.2/1.3/1.4.dcm"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
        (folder / name).chmod(0o664)
    (folder / "empty").mkdir()
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        place.chmod(0o775)
    return folder


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o177])
def test_a_new_folder_and_all_that_is_made_in_it_is_its_owners(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "above").mkdir(mode=0o755)
        (tmp_path / "above").chmod(0o755)
        out = tmp_path / "above" / "out"
        make_private(out)
        atomic.write_bytes(out / "cases.csv", b"x", out)
        atomic.write_bytes(out / "a" / "a_ifim.json", b"x")
        atomic.touch(out / "dicom" / "1.2" / "mark", out)
        with atomic.replacement(out / "a" / "a.mrb") as file:
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    finally:
        os.umask(before)
    found = modes(out)
    assert {name: mode for name, mode in found.items() if mode == 0o700}.keys() == {".", "a", "dicom", "dicom/1.2"}
    assert {name: mode for name, mode in found.items() if mode == 0o600}.keys() == {
        "cases.csv", "a/a_ifim.json", "a/a.mrb", "dicom/1.2/mark",
    }  # fmt: skip
    assert stat.S_IMODE((tmp_path / "above").stat().st_mode) == 0o755


def test_results_that_were_open_are_closed_with_a_word(out: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_private(out)
    assert set(modes(out).values()) == {0o700, 0o600}
    assert f"{out}: closed to everybody but you, with its 5 files (--private)." in caplog.text
    caplog.clear()
    make_private(out)
    assert caplog.text == ""


def test_nothing_is_closed_that_has_a_name_elsewhere_or_lies_behind_a_link(out: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o755)
    for name in ("linked", "shared"):
        (elsewhere / name).write_text("theirs")
        (elsewhere / name).chmod(0o644)
    (out / "a" / "a_ifim_low.nii.gz").symlink_to(elsewhere / "linked")
    (out / "a" / "a_ifim_old.nii.gz").hardlink_to(elsewhere / "shared")
    (out / "a" / "folder").symlink_to(elsewhere)
    os.mkfifo(out / "a" / "pipe")
    before = modes(elsewhere)
    make_private(out)
    assert modes(elsewhere) == before
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["notes.txt", "scans/scan.nii.gz", "a.nii.gz", "link"])
def test_what_is_no_result_is_not_closed_to_others_unasked(name: str, out: Path) -> None:
    path = out / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(out / "a") if name == "link" else path.write_text("theirs")
    before = modes(out)
    with pytest.raises(
        OutputError, match=f"holds {Path(name).parts[0]}, which is no result, and would be closed to others too"
    ) as refused:
        make_private(out)
    assert modes(out) == before
    subprocess.run(re.findall(r"\((chmod .*)\)", str(refused.value))[0], shell=True, check=True)  # the cure
    make_private(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_a_folder_of_another_user_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: out.stat().st_uid + 1)
    with pytest.raises(OutputError, match="belongs to another user"):
        make_private(out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o775


def test_out_may_be_a_link(out: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(out)
    make_private(tmp_path / "link")
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
