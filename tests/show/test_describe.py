"""Descriptions by rule: every label its clause, and contexts only where all of them agree."""

from dataclasses import replace

import pytest

from innerworks.atlas import Context, NeuronExample
from innerworks.show.behaviours import behaviour_of
from innerworks.show.describe import CLAUSES, described, in_common, one
from innerworks.show.verdicts import Head
from invented_neurons import example

DIGITS = example("L0N5", (" 12", "7", " 2004"))


def label(behaviour: str, rung: int = 1) -> Head:
    return Head(behaviour=behaviour, site="L0N5", layer=0, index=5, rung=rung, q=0.001, note="", scores=(), decides=frozenset())


def at(*positions: int) -> NeuronExample:
    contexts = tuple(Context(unit="a", tokens=("x", "y"), at=1, position=position, value=1.0) for position in positions)
    return NeuronExample(site="L0N5", side=1, contexts=contexts)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ((" 12", "7", "2004"), "digits"),
        ((" the", "The", " THE"), "“the”"),
        ((" Paris", "Rome", " IBM"), "capitalised words"),
        (("USA", " IBM", "NATO"), "capitals"),
        ((".", ",", " --"), "punctuation and signs"),
        (("\n", " ", "  "), "blanks"),
        ((" the", "7", "."), ""),
        ((" 12", "7"), ""),  # too few
        ((), ""),
    ],
)
def test_what_tokens_have_in_common(tokens: tuple[str, ...], said: str):
    assert in_common(tokens) == said


def test_contexts_make_a_clause_narrower_only_if_all_agree():
    assert one("token_class_neuron", DIGITS) == "responds to the sort of token: strongest on digits"
    mixed = replace(DIGITS, contexts=(*DIGITS.contexts, replace(DIGITS.contexts[0], tokens=("", "", " cat", ""))))
    assert one("token_class_neuron", mixed) == one("token_class_neuron", None) == "responds to the sort of token"
    assert one("alphabet_neuron", example("L0N5", (" cat", "Come", " CAR"))).endswith("strongest on c")
    assert one("alphabet_neuron", DIGITS) == "responds to the letter that a token begins with"


def test_position_is_bounded_by_the_last_context():
    assert one("position_neuron", at(1, 3, 9)) == "tells where in the text it is: strongest within the first 16 tokens"
    assert one("position_neuron", at(1, 3)) == one("position_neuron", at(1, 3, 900)) == "tells where in the text it is"


def test_the_token_before_and_tokens_named():
    assert one("previous_token_neuron", at(1, 2, 3)) == "responds to the token before: strongest after “x”"
    cats = example("L0N5", (" cat", "cat", " Cat"))
    assert one("token_detector", cats) == "fires on a few tokens and on little else: strongest on “cat”, “Cat”"
    assert one("token_detector", None) == "fires on a few tokens and on little else"
    assert one("prediction", replace(DIGITS, raised=((" 1", 2.0), ("7", 1.0), (" 30", 0.5)))) == "raises digits"
    assert one("suppression", DIGITS) == "lowers “dog”"


def test_labels_are_said_highest_rung_first_and_never_more():
    labels = [label("token_class_neuron", 3), label("prediction")]
    raises = replace(DIGITS, raised=((" 1", 2.0), ("7", 1.0), (" 30", 0.5)))
    assert described(labels, raises) == (
        "Responds to the sort of token: strongest on digits (necessary and selective); raises digits"
    )
    assert described([], raises) == ""
    assert described([label("skill:python")], None) == "Tells python from other text"


def test_a_kind_that_is_not_in_the_table_is_said_as_everywhere():
    assert one("new_kind", DIGITS) == behaviour_of("new_kind").says
    assert all(one(kind, None) and one(kind, DIGITS) for kind in CLAUSES)
