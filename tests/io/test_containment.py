"""Links below OUT are never followed for writing, deleting or changing permissions, whenever they are put there."""

from __future__ import annotations

import itertools
import os
import shlex
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from monai_ifim.io import atomic
from monai_ifim.io.containment import LinkedFolderError, check_real, is_plain_name, real_folder
from monai_ifim.io.errors import OutputError, explained

Tree = dict[str, tuple[int, bytes]]


def tree(folder: Path) -> Tree:
    """Mode and content of everything below a folder."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder outside of OUT full of traps, which is as it was at the end of the test."""
    folder = tmp_path / "elsewhere"
    (folder / "STUDY" / "SERIES").mkdir(parents=True)
    for place in (folder, folder / "STUDY", folder / "STUDY" / "SERIES"):
        place.chmod(0o755)
        for name in ("a_ifim_high.nii.gz", "a_ifim.json", "x.dcm", ".partial-0123456789abcdef", "cases.csv"):
            (place / name).write_text("theirs")
    before = tree(folder)
    yield folder
    assert tree(folder) == before


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


ACTIONS: dict[str, Callable[[Path, Path], Any]] = {
    "write": lambda folder, root: atomic.write_bytes(folder / "new.bin", b"x", root),
    "replace": lambda folder, root: atomic.write_text(folder / "cases.csv", "x", root),
    "touch": lambda folder, root: atomic.touch(folder / "new", root),
    "remove": lambda folder, root: atomic.remove(folder / "x.dcm", root),
    "remove files": lambda folder, root: atomic.remove_files(folder, lambda _: True, root),
    "remove partial": atomic.remove_partial,
    "check": atomic.check_folder,
    "refuse": check_real,
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", ["folder", "dangling", "file", "itself"])
def test_a_link_in_place_of_a_folder_is_refused_with_the_cure(
    kind: str, depth: int, action: str, elsewhere: Path, out: Path
) -> None:
    """The link lies 1, 2 or 3 levels below OUT, with real folders above, and perhaps folders of the target below."""
    above = out.joinpath(*("dicom", "STUDY")[: depth - 1])
    above.mkdir(parents=True, exist_ok=True)
    link, target = above / "it's linked", elsewhere
    if kind == "dangling":
        target = elsewhere / "nothing"
    elif kind == "file":
        target = elsewhere / "a_ifim.json"
    elif kind == "itself":
        target = link
    link.symlink_to(target)
    for folder in (link, link / "STUDY" / "SERIES"):
        with pytest.raises(LinkedFolderError) as refused:
            ACTIONS[action](folder, out)
        assert explained(refused.value).startswith(f"{link}: is a link to another place")
    command = explained(refused.value).split("(")[1].split(")")[0]
    assert shlex.split(command) == ["rm", str(link)]
    subprocess.run(command, shell=True, check=True)
    link.mkdir()
    ACTIONS[action](link, out)


@pytest.mark.parametrize("action", ACTIONS)
def test_without_a_root_the_folder_itself_is_no_link(action: str, elsewhere: Path, out: Path) -> None:
    (out / "case").symlink_to(elsewhere)
    with pytest.raises(LinkedFolderError):
        ACTIONS[action](out / "case", None)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ACTIONS)
def test_out_may_be_a_link_and_lie_behind_links(action: str, tmp_path: Path) -> None:
    (tmp_path / "disk" / "real" / "case").mkdir(parents=True)
    (tmp_path / "home").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "out").symlink_to(tmp_path / "disk" / "real")
    out = tmp_path / "home" / "out"
    ACTIONS[action](out, out)
    ACTIONS[action](out / "case", out)
    ACTIONS[action](out / "case", None)  # type: ignore[arg-type]
    assert out.is_symlink()


@pytest.mark.parametrize("name", ["..", "../elsewhere", "case/../../elsewhere", "/"])
def test_a_folder_outside_of_out_is_refused(name: str, elsewhere: Path, out: Path) -> None:
    for action in ACTIONS.values():
        with pytest.raises(OutputError, match="does not lie in"):
            action(out / name, out)


def test_a_relative_path_needs_no_folder(elsewhere: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out)
    atomic.write_text(Path("plain.txt"), "x")
    atomic.write_text(Path("case/plain.txt"), "x")
    atomic.write_text(Path("../out/above.txt"), "x")
    assert sorted(path.name for path in out.rglob("*.txt")) == ["above.txt", "plain.txt", "plain.txt"]


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link"])
@pytest.mark.parametrize("name", ["cases.csv", "index.html", "run.json", "case/case_ifim_high.nii.gz"])
def test_a_file_takes_the_place_of_a_link(name: str, kind: str, elsewhere: Path, out: Path) -> None:
    path, target = out / name, elsewhere / "a_ifim_high.nii.gz"
    path.parent.mkdir(exist_ok=True)
    if kind == "hard link":
        path.hardlink_to(target)
    else:
        path.symlink_to(elsewhere / "nothing" if kind == "dangling link" else target)
    atomic.write_bytes(path, b"ours", out)
    assert path.read_bytes() == b"ours"
    assert stat.S_ISREG(path.lstat().st_mode)
    assert path.lstat().st_nlink == 1


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe"])
def test_what_is_removed_is_the_name(kind: str, elsewhere: Path, out: Path) -> None:
    for i, name in enumerate(("a_ifim_old.nii.gz", ".partial-0123456789abcdef", "case/.partial-0123456789abcdef")):
        path, target = out / name, elsewhere / "STUDY" / "x.dcm"
        path.parent.mkdir(exist_ok=True)
        if kind == "hard link":
            path.hardlink_to(target)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(elsewhere / "nothing" if kind == "dangling link" else target)
        atomic.remove(path, out) if i == 0 else atomic.remove_partial_below(out)
    assert [path for path in out.rglob("*") if not path.is_dir()] == []


def test_a_mark_through_a_link_makes_nothing(elsewhere: Path, out: Path) -> None:
    (out / "mark").symlink_to(elsewhere / "made")
    atomic.touch(out / "mark", out)
    assert os.readlink(out / "mark") == str(elsewhere / "made")


def test_a_file_in_place_of_a_folder_keeps_its_content(out: Path) -> None:
    (out / "case").write_text("theirs")
    for action in ("write", "replace", "touch", "remove files", "check"):
        with suppress(NotADirectoryError):
            ACTIONS[action](out / "case", out)
    with pytest.raises(NotADirectoryError, match="case"):
        atomic.write_bytes(out / "case" / "x", b"x", out)
    assert (out / "case").read_text() == "theirs"


def test_a_folder_that_becomes_a_link_while_files_are_written(elsewhere: Path, out: Path) -> None:
    """Another thread swaps the folder and a link all the time: each file is in a real folder, or refused."""
    case, done = out / "case", threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        for number in itertools.takewhile(lambda _: not done.is_set(), itertools.count()):
            with suppress(FileNotFoundError, FileExistsError):  # the writer makes the folder again
                case.rename(out / f"aside-{number}")
                case.symlink_to(elsewhere)
                swaps += 1
            if case.is_symlink():
                case.unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    refused = written = 0
    try:
        while min(refused, written) < 20 and refused + written < 2000:
            try:
                atomic.write_bytes(case / f"{refused + written}_ifim_high.nii.gz", b"ours", out)
                atomic.remove_files(case, lambda name: name.startswith("a_"), out)
                atomic.remove_partial_below(out)
                written += 1
            except (
                LinkedFolderError,
                FileNotFoundError,
                FileExistsError,
                NotADirectoryError,
            ):  # the last: swapped once more since
                refused += 1
    finally:
        done.set()
        thread.join()
    assert swaps > 10
    assert written
    assert refused
    assert {path.read_bytes() for path in out.rglob("*_ifim_high.nii.gz")} == {b"ours"}


def test_what_is_open_stays_open_whatever_takes_its_name(elsewhere: Path, out: Path) -> None:
    with real_folder(out / "case", out, make=True) as folder, atomic.partial_file(out / "case") as file:
        (out / "case").rename(out / "moved")
        (out / "case").symlink_to(elsewhere)
        os.replace(file.name, "whole", src_dir_fd=folder, dst_dir_fd=folder)
        assert [path.name for path in (out / "moved").iterdir()] == ["whole"]


def test_no_descriptor_is_left_open(elsewhere: Path, out: Path) -> None:
    (out / "link").symlink_to(elsewhere)
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        for action in ACTIONS.values():
            with suppress(OutputError):
                action(out / "link", out)
            action(out / "case", out)
    assert len(os.listdir("/dev/fd")) == before


def test_whoever_holds_a_folder_makes_others_wait(out: Path) -> None:
    order = []

    def second() -> None:
        with atomic.held_folder(out / "case", out):
            order.append("second")

    thread = threading.Thread(target=second)
    with atomic.held_folder(out / "case", out):
        thread.start()
        thread.join(0.2)
        order.append("first")
        (out / "case").rmdir()  # as a case that fails leaves it
    thread.join()
    assert order == ["first", "second"]
    assert (out / "case").is_dir()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0b", "x" * 256, None, 3])
def test_names_that_lead_elsewhere_are_no_plain_names(name: object) -> None:
    assert not is_plain_name(name)
