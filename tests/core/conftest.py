"""The fixtures of the core's tests; see tests/core_cases.py."""

from core_cases import case, classifier_case, cnn, image, linear, probability_case, regression_case  # noqa: F401
