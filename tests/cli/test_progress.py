"""Progress of a run: the bar of its cases, one for a long computation, and lines where there is no terminal."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from monai_ifim.cli import progress as module
from monai_ifim.cli.progress import case_progress
from monai_ifim.core.solvers.watch import IterationState
from monai_ifim.run.case_clock import Stage
from monai_ifim.run.table import CaseRow


def console(terminal: bool) -> Console:
    return Console(file=StringIO(), width=160, force_terminal=terminal, legacy_windows=False)


def printed(where: Console) -> str:
    return " ".join(where.file.getvalue().replace("\N{NO-BREAK SPACE}", " ").split())  # type: ignore[attr-defined]


def test_a_terminal_shows_the_computation_in_hand_in_a_bar_that_goes_when_it_is_done() -> None:
    where = console(terminal=True)
    with case_progress(where, 2) as report:
        report.activity(Stage("a [x].nii", 12, 400, 95.0))
        report.progress.refresh()
        assert "a [x].nii" in printed(where)
        assert "12 of 400 products" in printed(where)
        assert "about 95.0 s left" in printed(where)
        assert len(report.progress.tasks) == 2
        report.activity(Stage("a [x].nii", 13, 400, 94.0))
        assert len(report.progress.tasks) == 2
        report.activity(None)
        report.activity(None)
        assert len(report.progress.tasks) == 1
        report(CaseRow("a", "done", seconds=1.0))
        report.progress.refresh()
    assert "1/2" in printed(where)


def test_an_iteration_shows_how_many_components_are_exact_enough() -> None:
    where = console(terminal=True)
    with case_progress(where, 1) as report:
        report.activity(Stage("a.nii", 5, None, None, IterationState(5, 40, 3, 1, 0.25, 0.05)))
        report.progress.refresh()
    assert "5 products" in printed(where)
    assert "1 of 3 components exact enough" in printed(where)


def test_a_log_gets_a_line_a_minute_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    where, now = console(terminal=False), [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with case_progress(where, 1) as report:
        for now[0] in (5.0, 61.0, 62.0, 100.0, 122.0):
            report.activity(Stage("a.nii", int(now[0]), 400, None))
        report.activity(None)
    assert [n for n in (5, 61, 62, 100, 122) if f"a.nii: {n} of 400 products" in printed(where)] == [61, 122]
