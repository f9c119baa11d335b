"""Prompts that ask for a verb: aligned, balanced, units are templates, and there are none where a tokenizer cuts words."""

from collections import Counter
from typing import Any

import pytest

from innerworks.text.tasks import agreement
from innerworks.text.tasks.agreement import BETWEEN, NOUNS, TEMPLATES, VERBS
from innerworks.text.tasks.pairs import Pair, next_token, only_difference


@pytest.mark.parametrize("opening", [None, "<end>"])
def test_pairs_differ_in_the_subject_alone_and_want_the_verb_that_agrees_with_it(agreeing_tokenizer: Any, opening: Any) -> None:
    tokenizer = agreeing_tokenizer(opening)
    pairs = agreement(tokenizer)
    singular, plural = ({tokenizer.convert_tokens_to_ids(both[i]) for both in VERBS} for i in (0, 1))
    for pair in pairs:
        words = pair.clean.split()
        between = len(words) - 1 - next(i for i, word in enumerate(reversed(words)) if word in dict(BETWEEN) | _reversed(BETWEEN))
        subject = next(i for i, word in enumerate(words) if word in dict(NOUNS) | _reversed(NOUNS))
        shift = 0 if opening is None else 1
        assert pair.positions == {"subject": subject + shift, "attractor": between + shift, "last": len(words) - 1 + shift}
        assert only_difference(pair.tokens, pair.corrupt_tokens) == subject + shift
        one = words[subject] in dict(NOUNS)
        assert (words[between] in dict(BETWEEN)) is not one  # the noun between has the other number
        assert set(pair.answers) == (singular if one else plural) and set(pair.foils) == (plural if one else singular)
        assert tokenizer.decode(pair.tokens, skip_special_tokens=True) == pair.clean


def _reversed(nouns: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {several: one for one, several in nouns}


def test_a_unit_is_a_template_and_each_noun_is_in_one_of_them_with_both_its_numbers(agreeing_tokenizer: Any) -> None:
    pairs = agreement(agreeing_tokenizer())
    templates = {template: stratum for stratum, some in TEMPLATES.items() for template in some}
    assert {pair.unit: pair.stratum for pair in pairs} == templates
    nouns = Counter(subject(pair) for pair in pairs)
    assert nouns == Counter({one: 2 for one, _ in NOUNS}) and len(pairs) == 2 * len(NOUNS)
    assert all(len({pair.unit for pair in pairs if subject(pair) == noun}) == 1 for noun in nouns)
    halves = {pair.unit: pair.half for pair in pairs}
    assert all(halves[pair.unit] == pair.half for pair in pairs)
    for stratum, some in TEMPLATES.items():
        assert Counter(halves[template] for template in some) == {"discovery": 7, "confirmation": 7}, stratum
    assert agreement(agreeing_tokenizer()) == pairs


def subject(pair: Pair) -> str:
    """The subject noun, in the singular."""
    singular = dict(NOUNS) | _reversed(NOUNS)
    word = next(word for word in pair.clean.split() if word in singular)
    return word if word in dict(NOUNS) else singular[word]


def test_a_tokenizer_that_does_not_know_the_words_leaves_no_pairs(tiny_tokenizer: Any) -> None:
    assert agreement(tiny_tokenizer) == ()


def test_nouns_and_verbs_of_several_tokens_are_left_out(agreeing_tokenizer: Any) -> None:
    full, fewer = agreeing_tokenizer(), agreeing_tokenizer(without=("teachers", "is", "dog"))
    pairs = agreement(fewer)
    assert {subject(pair) for pair in pairs} == {one for one, _ in NOUNS} - {"teacher"}
    assert len(pairs[0].answers) == len(VERBS) - 1 and not any("dog" in pair.clean for pair in pairs)
    assert next_token(full, "The man", "is") is not None and next_token(fewer, "The man", "is") is None
