"""A case, and a run of many, in sentences: for the console, and for programs that read aloud."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.display.numbers import counted, number, percent, probability
from monai_ifim.run.labels import are_independent

__all__ = ["answer_words", "case_sentence", "run_sentences"]

MOST_VALUES = 3  # volumes or predicted values in a sentence
MOST_ANSWERS = 5  # different answers that are counted by name
BACKGROUND = "background"
CONVERGED = "not converged"  # as `core.decomposition.status_of` says it, which the command line's help does not load


def answer_words(case: Mapping[str, Any]) -> str:
    """The network's answer with its number: "Hand, probability 0.508", "lesion 0.512 ml"; empty where there is none.

    case: fields of a row of cases.parquet, from `run.table.CaseRow` or `read_cases`.
    """
    name, head, values = _text(case["prediction"]), _text(case["head"]), _list(case["probabilities"])
    if not values:
        return _means(case)
    if are_independent(head, len(values)):
        sure = probability(_number(case["probability"]))
        return f"{name}, the likeliest of {counted(len(values), 'label')}, probability {sure}"
    mean = "mean " if head.startswith("voxelwise") else ""
    return f"{name}, {mean}probability {probability(_number(case['probability']))}" if name else ""


def case_sentence(case: Mapping[str, Any]) -> str:
    """The case in a sentence or two, its name first. case: as of `answer_words`."""
    name = case["case"]
    if case["status"] == "failed":
        return f"{name} failed: {_text(case['reason'])}"
    answer, part = answer_words(case), _text(case["decomposed"])
    said = f"{name}: {answer or 'the network gives no class'}."
    if case.get("saturated") == "yes":
        return f"{said} Saturated: no small change of this image moves that answer."
    kept = _number(case["rank"])
    if not kept:
        return f"{said} No small change of this image moves that answer."
    holds = f"{counted(kept, 'component')} {'holds' if kept == 1 else 'hold'} {percent(_number(case['energy_kept']))}"
    whose = f" of {part}" if part else ""
    doubt = ", not converged" if _text(case["convergence"]) == CONVERGED else ""
    return f"{said} {holds} of the sensitivity{whose}{doubt}."


def run_sentences(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """What many cases answered, and which of them is least sure. cases: as of `answer_words`, failed ones are left out."""
    made = [case for case in cases if case["status"] != "failed"]
    answers = Counter(name for case in made if (name := _text(case["prediction"])))
    if not answers:
        return []
    named = [f"{name} {number}" for name, number in answers.most_common(MOST_ANSWERS)]
    others = sum(answers.values()) - sum(number for _, number in answers.most_common(MOST_ANSWERS))
    said = [f"Answers: {', '.join(named)}{f', others {others}' if others else ''}."]
    sure = [(value, case) for case in made if (value := _number(case["probability"])) is not None and not _independent(case)]
    if sure:
        least = min(sure, key=lambda pair: pair[0])[1]
        said.append(f"Least sure: {least['case']} ({answer_words(least)}).")
    return said


def _independent(case: Mapping[str, Any]) -> bool:
    return _text(case["head"]).startswith("bernoulli")


def _means(case: Mapping[str, Any]) -> str:
    """Expected volumes without that of the background, or predicted values."""
    unit = _text(case["means_unit"])
    pairs = list(zip(_list(case["class_names"]), _list(case["means"]), strict=False))
    shown = [pair for pair in pairs if str(pair[0]).casefold() != BACKGROUND] or pairs
    texts = [f"{name} {number(_number(value))}{f' {unit}' if unit else ''}" for name, value in shown[:MOST_VALUES]]
    return f"{', '.join(texts)}{', ...' if len(shown) > MOST_VALUES else ''}"


def _list(value: Any) -> list[Any]:
    """The items of a tuple or an array; none for None and for what pandas has in its place."""
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else []


def _number(value: Any) -> float | None:
    """A float; None for None and for pandas' missing values, which are not equal to themselves."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
