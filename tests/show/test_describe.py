"""Descriptions by rule: every label its clause, and contexts only where all of them agree."""

from dataclasses import replace

import pytest

from innerworks.atlas import Context, NeuronExample
from innerworks.show.behaviours import behaviour_of
from innerworks.show.describe import NARROWER, clause, described, in_common
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
    plain = behaviour_of("token_class_neuron").says
    assert clause("token_class_neuron", DIGITS) == f"{plain}: strongest on digits"
    mixed = replace(DIGITS, contexts=(*DIGITS.contexts, replace(DIGITS.contexts[0], tokens=("", "", " cat", ""))))
    assert clause("token_class_neuron", mixed) == clause("token_class_neuron", None) == plain
    assert clause("alphabet_neuron", example("L0N5", (" cat", "Come", " CAR"))).endswith(": strongest on c")
    assert clause("alphabet_neuron", DIGITS) == clause("alphabet_neuron", mixed) == behaviour_of("alphabet_neuron").says


def test_too_few_contexts_say_nothing():
    assert clause("position_neuron", at(1, 3)) == clause("position_neuron", None)
    assert clause("token_detector", at(1, 3)) == clause("token_detector", None)


def test_position_is_bounded_by_the_last_context():
    assert clause("position_neuron", at(1, 3, 9)).endswith(": strongest within the first 16 tokens")
    assert clause("position_neuron", at(1, 3, 900)) == behaviour_of("position_neuron").says


def test_the_token_before_and_tokens_named():
    assert clause("previous_token_neuron", at(1, 2, 3)).endswith(": strongest after “x”")
    assert clause("token_detector", example("L0N5", (" cat", "cat", " Cat"))).endswith(": strongest on “cat”, “Cat”")
    pairs = example("L0N5", (" York", " York", " York"))
    contexts = tuple(replace(context, tokens=(" in", " New", " York")) for context in pairs.contexts)
    assert clause("pair_detector", replace(pairs, contexts=contexts)).endswith(": strongest on “New·York”")
    assert clause("prediction", replace(DIGITS, raised=((" 1", 2.0), ("7", 1.0), (" 30", 0.5)))).endswith(": digits")
    assert clause("suppression", DIGITS).endswith(": “dog”")


def test_labels_are_said_highest_rung_first_and_never_more():
    labels = [label("token_class_neuron", 3), label("skill:python")]
    said = described(labels, DIGITS)
    first, second = (behaviour_of(name).says for name in ("token_class_neuron", "skill:python"))
    assert said.lower() == f"{first}: strongest on digits (necessary and selective); {second}"
    assert described([], DIGITS) == "" and described([label("skill:python")], None)[0].isupper()


def test_kinds_without_contexts_of_their_own_say_what_such_a_neuron_does():
    for kind in ("new_kind", "entropy", "concept:colours"):
        assert clause(kind, DIGITS) == behaviour_of(kind).says
    assert all(clause(kind, DIGITS).startswith(behaviour_of(kind).says) for kind in NARROWER)
