"""The vocabulary: every word once, with a meaning that a stranger reads, and names of files that exist."""

from __future__ import annotations

import math
import re

import pytest
from scipy.special import rel_entr

from monai_ifim.display import vocabulary
from monai_ifim.display.vocabulary import GLOSSARY, Term
from monai_ifim.io.maps import KINDS
from monai_ifim.run.table import SCHEMA

OF_SIDECARS = {"error_bound", "residuals", "volumes", *KINDS}  # besides those that are columns too


def test_glossary_holds_every_term_once() -> None:
    terms = [value for value in vars(vocabulary).values() if isinstance(value, Term)]
    assert sorted(GLOSSARY, key=repr) == sorted(terms, key=repr)
    labels = [term.label for term in GLOSSARY]
    assert len(set(labels)) == len(labels)


def test_public_names_are_the_terms() -> None:
    named = {name for name, value in vars(vocabulary).items() if isinstance(value, Term)}
    assert named == set(vocabulary.__all__) - {
        "GLOSSARY",
        "MAPS",
        "ONE_NAT",
        "PER_UNIT",
        "Term",
        "map_name",
        "term_of",
        "titled",
    }


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.label)
def test_meaning_is_one_to_three_sentences_without_signs_of_markup(term: Term) -> None:
    assert 1 <= len(re.findall(r"[.!?](?= [A-Z0-9]|$)", term.meaning)) <= 4
    assert term.meaning.endswith(".")
    assert not re.search(r"[<>&*`_]", term.meaning)
    assert len(term.meaning) < 300


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.label)
def test_labels_hold_no_word_of_the_mathematics(term: Term) -> None:
    assert not re.search(r"\b(trace|eigen\w+|rank|energy|diag|projection|locality)\b", term.label)


def test_named_fields_are_columns_of_the_table_or_keys_of_a_sidecar() -> None:
    named = {field for term in GLOSSARY for field in term.fields}
    assert named - set(SCHEMA.names) - OF_SIDECARS == set()


def test_tooltip_ends_with_the_name_in_papers() -> None:
    assert vocabulary.TOTAL_SENSITIVITY.tip.endswith(" In papers: trace of F.")
    assert vocabulary.CASE.tip == vocabulary.CASE.meaning


def test_title_has_a_capital_letter() -> None:
    assert vocabulary.TOTAL_SENSITIVITY.title == "Total sensitivity"


@pytest.mark.parametrize(("nats", "after"), [("0.02", "0.60"), ("1", "0.96")])
def test_nats_of_the_glossary_are_those_of_two_classes(nats: str, after: str) -> None:
    """KL((0.5, 0.5) || (1 - q, q)) by scipy, at the q that the text states."""
    assert re.search(rf"\b{nats} nats? takes? [^.;]*(0\.50, |it )to {after}", vocabulary.NAT.meaning)
    low, high = float(after) - 0.005, float(after) + 0.005

    def divergence(q: float) -> float:
        return float(rel_entr([0.5, 0.5], [1 - q, q]).sum())

    assert divergence(low) <= float(nats) * 1.03
    assert divergence(high) >= float(nats) * 0.97
    assert f"{1 / math.log(2):.2f} bits" in vocabulary.NAT.meaning
