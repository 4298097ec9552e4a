"""A case, and a run of many, in sentences: for console and page, and for programs that read aloud."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from monai_ifim.display.numbers import FIRM_SPACE, counted, number, percent, probability
from monai_ifim.display.saturation import SATURATED
from monai_ifim.display.vocabulary import titled
from monai_ifim.run.labels import are_independent

__all__ = ["answer_words", "case_sentence", "notable_sentence", "run_sentences", "step_sentence"]

MOST_VALUES = 3  # volumes or predicted values in a sentence
MOST_ANSWERS = 5  # different answers that are counted by name
BACKGROUND = "background"
COST = 0.1  # nats: what the change in `step_sentence` costs, unless the eigenvalue holds up to a smaller one only
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


def notable_sentence(case: Mapping[str, Any]) -> str:
    """What a case is worth looking at for, in one sentence, without its name and answer.

    case: as of `answer_words`, and "notes", why it stands out from the others of its run.
    """
    if case["status"] == "failed":
        return f"Failed: {_text(case['reason'])}"
    if case["saturated"] == "yes":
        return f"{titled(SATURATED)}."
    if case["notes"]:
        return f"Stands out: {case['notes']}."
    return _text(case["volume_sentence"]) or step_sentence(case)


def step_sentence(case: Mapping[str, Any]) -> str:
    """How far a change along component 1 moves the answer: one that costs COST, or the largest that the eigenvalue describes."""
    eigenvalue, whole = _positive(case["eigenvalue"]), _positive(case["norm_input"])
    if not eigenvalue or not whole:
        return ""
    radii = _list(case["locality_radius"])
    step = min(math.sqrt(2 * COST / eigenvalue), _positive(radii[0] if radii else None) or math.inf)
    cost = f"{number(eigenvalue * step**2 / 2, 2)}{FIRM_SPACE}nats"
    if step >= whole:
        return f"No change along component 1 that is smaller than the image itself moves the answer by {cost}."
    return f"A change of {percent(step / whole)} of the image along component 1 moves the answer by {cost}."


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


def _positive(value: Any) -> float:
    """A positive, finite number; 0 for anything else."""
    known = _number(value)
    return known if known is not None and 0 < known < math.inf else 0.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
