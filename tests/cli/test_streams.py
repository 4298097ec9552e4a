"""Output that nobody reads: a closed pipe or a closed terminal stops no run and leaves no traceback."""

from __future__ import annotations

import io
import os
import pty
from pathlib import Path
from typing import TextIO

import pytest

from monai_ifim.cli.streams import _forgiving


def opened(descriptor: int, encoding: str = "utf-8") -> TextIO:
    """A stream such as Python's own standard output is, made forgiving."""
    return _forgiving(io.TextIOWrapper(io.FileIO(descriptor, "wb", closefd=False), encoding, write_through=True))


@pytest.fixture
def broken() -> int:
    """A pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_text_for_a_closed_pipe_is_dropped_for_good(broken: int) -> None:
    stream = opened(broken)
    for _ in range(3):
        print("a line" * 10_000, file=stream, flush=True)
    os.write(broken, b"a library's own output")
    stream.flush()


def test_text_for_a_closed_terminal_is_dropped() -> None:
    controller, terminal = pty.openpty()
    os.close(controller)
    print("a line", file=opened(terminal), flush=True)


def test_a_full_disk_is_not_taken_for_a_closed_pipe() -> None:
    stream = opened(os.open("/dev/full", os.O_WRONLY))
    print("a line", file=stream)
    with pytest.raises(OSError, match="No space left"):
        stream.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # for what is flushed at the end


def test_numbers_stay_readable_in_any_encoding(tmp_path: Path) -> None:
    path = tmp_path / "out"
    stream = opened(os.open(path, os.O_WRONLY | os.O_CREAT), "ascii")
    print("\N{MINUS SIGN}3\N{NO-BREAK SPACE}% 张", file=stream, flush=True)
    assert path.read_bytes() == b"-3 % ?\n"


def test_stream_of_another_kind_is_left_alone() -> None:
    text = io.StringIO()
    assert _forgiving(text) is text
