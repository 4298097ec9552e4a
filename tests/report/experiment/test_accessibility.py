"""The report of an experiment by axe-core for WCAG 2.2 AA, and at the width of a laptop."""

from __future__ import annotations

from pathlib import Path

import pytest

from accessibility import Axe
from monai_ifim.viewer.gate import REFUSED


@pytest.mark.soak
def test_report_keeps_the_rules_of_wcag_and_fits_1280_pixels(axe: Axe, experiment: Path) -> None:
    found = axe.open(experiment / "report.html").report()
    assert found.violations == []
    assert {"color-contrast", "image-alt"} <= found.passed
    assert axe.wider_than_window() == []


def test_page_that_refuses_a_viewer_keeps_the_rules_of_wcag(axe: Axe, tmp_path: Path) -> None:
    (tmp_path / "refused.html").write_text(REFUSED, encoding="utf-8")
    assert axe.open(tmp_path / "refused.html").report().violations == []
