"""Cases and runs in sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_ifim.run.cohort import read_cases
from monai_ifim.run.sentences import answer_words, case_sentence, run_sentences
from monai_ifim.run.table import CaseRow, write_table

HAND = CaseRow(
    "s1", "done", prediction="Hand", probability=0.75, probabilities=(0.25, 0.75), class_names=("CXR", "Hand"),
    rank=1, energy_kept=0.995, head="categorical",
)  # fmt: skip
LABELS = CaseRow(
    "s2", "kept", prediction="mass", probability=0.4, probabilities=(0.4, 0.1, 0.2), class_names=("mass", "edema", "node"),
    rank=3, energy_kept=1.0, head="bernoulli",
)  # fmt: skip
VOLUMES = CaseRow(
    "s3", "done", class_names=("Background", "liver", "lesion"), means=(5.0, 12.5, 0.5), means_unit="ml", rank=2, energy_kept=0.9,
    head="volumes", decomposed="the volume of lesion", convergence="not converged",
)  # fmt: skip
VOXELS = CaseRow("s4", "done", prediction="liver", probability=0.5, probabilities=(0.5, 0.5), rank=0, head="voxelwise")
FAILED = CaseRow("s5", "failed", reason="s5.nii: the file is empty.")
ROWS = (HAND, LABELS, VOLUMES, VOXELS, FAILED)

ANSWERS = (
    "Hand, probability 0.750",
    "mass, the likeliest of 3 labels, probability 0.400",
    "liver 12.5 ml, lesion 0.500 ml",
    "liver, mean probability 0.500",
    "",
)
SENTENCES = (
    "s1: Hand, probability 0.750. 1 component holds 99.5 % of the sensitivity.",
    "s2: mass, the likeliest of 3 labels, probability 0.400. 3 components hold 100 % of the sensitivity.",
    "s3: liver 12.5 ml, lesion 0.500 ml. 2 components hold 90.0 % of the sensitivity of the volume of lesion, not converged.",
    "s4: liver, mean probability 0.500. No small change of this image moves that answer.",
    "s5 failed: s5.nii: the file is empty.",
)


@pytest.fixture(params=["rows", "frame"])
def cases(request: pytest.FixtureRequest, tmp_path: Path) -> list[dict[str, Any]]:
    """The same cases as rows of a run, and as pandas gives them back, where texts may be None and numbers NaN."""
    if request.param == "rows":
        return [vars(row) for row in ROWS]
    write_table(tmp_path, ROWS)
    return read_cases(tmp_path).to_dict("records")


def test_each_case_is_a_sentence(cases: list[dict[str, Any]]) -> None:
    assert tuple(case_sentence(case).replace("\N{NO-BREAK SPACE}", " ") for case in cases) == SENTENCES
    assert tuple(answer_words(case) for case in cases[:4]) == ANSWERS[:4]


def test_a_saturated_case_says_so_in_place_of_its_components() -> None:
    said = case_sentence(vars(HAND) | {"saturated": "yes"})
    assert said == "s1: Hand, probability 0.750. Saturated: no small change of this image moves that answer."


def test_predicted_values_are_named_and_further_ones_left_out() -> None:
    row = CaseRow("r", "done", class_names=("a", "b", "c", "d"), means=(1.0, -2.0, 3.0, 4.0), head="gaussian", rank=1)
    assert answer_words(vars(row)) == "a 1.00, b \N{MINUS SIGN}2.00, c 3.00, ..."


def test_many_cases_are_counted_by_answer_and_the_least_sure_is_named(cases: list[dict[str, Any]]) -> None:
    many = [*cases, cases[0] | {"case": "s6", "probability": 0.6}, *(cases[0] | {"prediction": f"p{n}"} for n in range(6))]
    answers, least = run_sentences(many)
    assert answers == "Answers: Hand 2, mass 1, liver 1, p0 1, p1 1, others 4."
    assert least == "Least sure: s4 (liver, mean probability 0.500)."


def test_runs_without_an_answer_say_nothing() -> None:
    assert run_sentences([vars(FAILED), vars(VOLUMES)]) == []
