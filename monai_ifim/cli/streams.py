"""The command line's output: a reader that goes away, or a character that the encoding lacks, stops no run."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from monai_ifim.display import numbers

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PLAIN_SIGNS = {
    numbers.MINUS: "-",
    numbers.TIMES: "x",
    numbers.FIRM_SPACE: " ",
    "\N{EN DASH}": "-",
    "\N{HORIZONTAL ELLIPSIS}": "...",
}
NOBODY_READS = frozenset({errno.EPIPE, errno.EIO, errno.ENXIO})  # a closed pipe; a terminal that is gone


class _Forgiving(io.FileIO):
    """A file descriptor whose output is dropped from the moment on that nobody can read it."""

    def write(self, content: ReadableBuffer, /) -> int:
        """Bytes written; all of them where nobody reads any more."""
        try:
            return super().write(content) or 0
        except OSError as error:
            if error.errno not in NOBODY_READS:
                raise
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for the rest of the process, and for libraries that write by themselves
            os.close(nowhere)
            return memoryview(content).nbytes


def make_streams_forgiving() -> None:
    """Replace sys.stdout and sys.stderr by streams that never fail because of their reader or their encoding.

    After `| head -1` the run goes on without a word, and the exit status is its own.
    """
    sys.stdout, sys.stderr = _forgiving(sys.stdout), _forgiving(sys.stderr)


def _forgiving(stream: TextIO) -> TextIO:
    """The stream on the same descriptor; one without a descriptor of its own is only made to print in its encoding."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.reconfigure(errors="plain_signs")
    try:
        raw = _Forgiving(stream.fileno(), "wb", closefd=False)
    except OSError:  # without a descriptor
        return stream
    stream.flush()
    buffered = stream.line_buffering
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "plain_signs", line_buffering=buffered)


def _plain_signs(error: UnicodeError) -> tuple[str, int]:
    """What is printed for characters that the stream's encoding lacks: numbers stay readable, others become "?"."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN_SIGNS.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


codecs.register_error("plain_signs", _plain_signs)
