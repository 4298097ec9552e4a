"""Scanner space from file to file on real scans: changed files change the answer as e^2 l / 2 predicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.file_steps import Loop, recorded_subjects


@pytest.mark.soak
def test_files_moved_along_u_1_change_the_answer_as_predicted(real_data: Path, tmp_path: Path) -> None:
    loops: dict[str, Loop] = {}
    rows = []
    for subject in recorded_subjects(real_data, tmp_path):
        loop = loops.setdefault(subject.bundle, Loop(subject.bundle))
        rows += loop.run(subject, tmp_path)
    assert len({row.scan for row in rows}) >= 16
    assert [f"{row.scan}, {row.resolution}, step {row.step:.3g}: {row.verdict}" for row in rows if row.agrees is False] == []
    assert sum(row.agrees is True for row in rows) >= 80
    assert max(row.copied for row in rows) == 0
