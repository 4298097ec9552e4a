"""What is told of an error: one line, of the cause that a reader can do something about."""

from __future__ import annotations

import errno
import os
from itertools import pairwise

import pytest

from monai_ifim.core.errors import IFIMError
from monai_ifim.io.errors import InputError, OutputError, explained, innermost, reason_of, refusal, single_line


def chain(*errors: Exception) -> BaseException:
    """The last of the errors, each raised from the one before."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


def disk(code: int, file: str | bytes | None = None) -> OSError:
    return OSError(code, os.strerror(code), file) if file is not None else OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("a.nii: the file is empty."), "a.nii: the file is empty."),
        (IFIMError("two\n  lines"), "two lines"),
        (disk(errno.ENOSPC, "/data/out/case/x.nii.gz"), "case/x.nii.gz: No space left on device: make room and run"),
        (disk(errno.ENAMETOOLONG, b"/data/\xff/x.nii.gz"), r"\udcff/x.nii.gz: File name too long: give it a shorter name"),
        (disk(errno.EROFS), "Read-only file system: choose another place"),
        (disk(errno.EIO, "/data/x"), "data/x: Input/output error."),
        (OSError("no number at all"), "OSError: no number at all (this is a bug; --debug shows where)"),
        (MemoryError(), "not enough memory: take a smaller image"),
        (MemoryError("1 GiB"), "not enough memory (1 GiB): take a smaller image"),
        (KeyError(), "KeyError (this is a bug; --debug shows where)"),
        (RuntimeError("shapes\ndiffer"), "RuntimeError: shapes differ (this is a bug; --debug shows where)"),
    ],
)
def test_error_is_told_in_one_line_with_its_cure(error: Exception, words: str) -> None:
    told = explained(error)
    assert told.startswith(words)
    assert "\n" not in told
    assert "/data/" not in told.replace("/data/x", "")  # where a user's data lie is no matter of a log


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (chain(ValueError("deep."), RuntimeError("shallow")), "deep"),
        (chain(ValueError("deep"), InputError("ours."), RuntimeError("shallow")), "ours"),
        (ValueError("Traceback:\n\n  the point.\nmore"), "the point"),
        (RuntimeError("ITK ERROR: ImageFileReader(0x55d0c8a9b0): no such file"), "no such file"),
        (KeyError(), "KeyError"),
    ],
)
def test_first_cause_of_a_chain_speaks_unless_one_of_ours_has(error: BaseException, words: str) -> None:
    assert innermost(error) == words


def test_refusal_is_the_error_of_ours_that_a_chain_passed_through() -> None:
    ours = OutputError("ours")
    assert refusal(chain(ValueError("deep"), ours, RuntimeError("shallow"))) is ours
    assert refusal(ours) is ours
    assert refusal(chain(ValueError("deep"), RuntimeError("shallow"))) is None


def test_reason_names_the_type_of_what_is_not_ours() -> None:
    assert reason_of(InputError("a.nii:  is\nempty.")) == "a.nii: is empty."
    assert reason_of(RuntimeError("shapes\ndiffer")) == "RuntimeError: shapes differ"
    assert reason_of(StopIteration()) == "StopIteration: StopIteration"


def test_what_no_terminal_can_print_is_spelt_out() -> None:
    assert (
        single_line("a\x1b[2J\tb\r\nc\udcff \N{LATIN SMALL LETTER E WITH ACUTE}")
        == "a\\x1b[2J b c\\udcff \N{LATIN SMALL LETTER E WITH ACUTE}"
    )
