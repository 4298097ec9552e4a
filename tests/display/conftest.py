"""The fixtures of the tests of display, those of core with fewer cases; see tests/core_cases.py."""

import pytest

from core_cases import CASES, Case, classifier_case, cnn, image, linear, probability_case, regression_case  # noqa: F401


@pytest.fixture(scope="session", params=CASES[1::5], ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    """A case of each head, 2D and 3D: how it is drawn depends on no more."""
    chosen: Case = request.param
    return chosen
