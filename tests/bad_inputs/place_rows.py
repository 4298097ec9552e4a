"""Rows of output folders, file names and lists of cases."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bad_inputs.attempt import Attempt, Row, bad_input
from bad_inputs.nifti_rows import save


def output(place: Callable[[Attempt], Path]) -> Callable[[Attempt], Attempt]:
    return lambda attempt: replace(attempt, output=place(attempt))


def file_as_output(attempt: Attempt) -> Path:
    (attempt.folder / "file").write_text("not a folder")
    return attempt.folder / "file"


def file_for_the_case(attempt: Attempt) -> Attempt:
    attempt.output.mkdir()
    (attempt.output / "bad").write_text("something else")
    return attempt.between(save(attempt.folder))


def no_room_for(name: str, attempt: Attempt) -> Attempt:
    """A fault: the disk is full when the file of this name is written."""
    real = os.replace

    def full(source: str, target: str, **folders: int) -> None:
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, **folders)

    return replace(attempt, fault=lambda monkeypatch: monkeypatch.setattr(os, "replace", full))


def bug(attempt: Attempt) -> Attempt:
    """Raises an error that stands for a bug of the program."""

    def mistake(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    return replace(attempt, fault=lambda monkeypatch: monkeypatch.setattr("monai_ifim.run.cases.search_cases", mistake))


def named(name: str | bytes) -> Callable[[Attempt], Attempt]:
    """A good image with an unusual name, given by its folder."""

    def make(folder: Path) -> Path:
        (folder / "odd").mkdir()
        shutil.move(save(folder, name="good.nii.gz"), os.path.join(os.fsencode(folder / "odd"), os.fsencode(name)))
        return folder / "odd"

    return bad_input(make)


def empty_of_odd_name(folder: Path) -> Path:
    (folder / "odd\nname\x1b[2J.nii.gz").write_bytes(b"")
    return folder / "odd\nname\x1b[2J.nii.gz"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def datalist(content: Any) -> Callable[[Attempt], Attempt]:
    def make(folder: Path) -> Path:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "list.json").write_text(text)
        return folder / "list.json"

    return bad_input(make)


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


NO_JSON = "list.json: not a JSON datalist (...)."
NO_IMAGE = "list.json: entry 1 has no image: name one, {'image': 'scan.nii.gz'}."
NO_ENTRY = "list.json: a datalist that names no image: add entries, {'image': 'scan.nii.gz'}."
NO_ROOM = "...: No space left on device: make room and run the same command again, whole cases are kept."
NOTHING_IN_IT = "...: no image and no DICOM series in it."

ROWS = [
    Row(
        "a file instead of the output folder", output(file_as_output), "refused",
        "...: cannot be made (File exists): choose another --output.",
    ),
    Row(
        "an output folder below a file", output(lambda attempt: file_as_output(attempt) / "out"), "refused",
        "...: cannot be made (Not a directory): choose another --output.",
    ),
    Row(
        "an output folder that may not be written", output(lambda _: Path("/sys")), "refused",
        "...: cannot be written (...): choose another --output.",
    ),
    Row(
        "an output path that is too long", output(lambda attempt: attempt.folder / ("long" * 80)), "refused",
        "...: cannot be made (File name too long): choose another --output.",
    ),
    Row(
        "a file instead of the case's folder", file_for_the_case, "done", "done",
    ),
    Row(
        "a disk that is full in the middle of a case",
        lambda attempt: no_room_for("bad_planes.npz", attempt.between(save(attempt.folder))), "failed", NO_ROOM,
    ),
    Row(
        "a disk that is full after the last case", lambda attempt: no_room_for("cases.csv", attempt), "refused", NO_ROOM,
    ),
    Row(
        "an input path that is too long", lambda attempt: attempt.between("long" * 1200), "failed",
        "longlonglonglonglonglonglonglonglonglong: cannot be looked up (File name too long): correct the path.",
    ),
    Row("an input name of 240 letters", named("n" * 240 + ".nii.gz"), "done", "done"),
    Row("a name with spaces and quotes", named("it's \"my\" scan.nii.gz"), "done", "done"),
    Row("a name with a new line and an escape", named("new\nline\x1b[31m.nii.gz"), "done", "done"),
    Row("a name with a leading dash", named("--bundle.nii.gz"), "done", "done"),
    Row("a name that is not ASCII", named("Schädel 頭部.nii.gz"), "done", "done"),
    Row("a name that is no UTF-8", named(b"sch\xe4del.nii.gz"), "done", "done"),
    Row("a bad file of an odd name", bad_input(empty_of_odd_name), "failed", "odd name\\x1b[2J.nii.gz: the file is empty."),
    Row("an input that is a pipe", bad_input(pipe), "failed", "...: neither a file nor a folder."),
    Row("no input at all", lambda attempt: replace(attempt, inputs=()), "usage", "Missing argument 'INPUT...'."),
    Row("an empty folder", bad_input(empty_folder), "failed", NOTHING_IN_IT),
    Row("a datalist with a file that is missing", datalist(["gone.nii.gz"]), "failed", "...gone.nii.gz: no such file or folder."),
    Row("a datalist that is no JSON", datalist("{"), "failed", NO_JSON),
    Row("a datalist nested without end", datalist("[" * 200_000), "failed", NO_JSON),
    Row("a datalist without images", datalist([{"label": 1}]), "failed", NO_IMAGE),
    Row("a datalist with an empty name", datalist([{"image": " "}]), "failed", NO_IMAGE),
    Row("an empty datalist", datalist([]), "failed", NO_ENTRY),
    Row(
        "a mistake in the program itself", bug, "refused",
        "ZeroDivisionError: division by zero (this is a bug; --debug shows where)",
    ),
]  # fmt: skip
