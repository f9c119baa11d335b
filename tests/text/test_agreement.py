"""Prompts that ask for a verb: aligned, balanced, each noun in one template, and none where a tokenizer cuts words."""

from collections import Counter
from typing import Any

import pytest

from innerworks.text.tasks import agreement
from innerworks.text.tasks.agreement import BETWEEN, NOUNS, TEMPLATES, VERBS
from innerworks.text.tasks.pairs import next_token, only_difference


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


def test_a_unit_is_a_noun_in_one_template_with_both_its_numbers(agreeing_tokenizer: Any) -> None:
    pairs = agreement(agreeing_tokenizer())
    units = Counter(pair.unit for pair in pairs)
    assert set(units.values()) == {2} and len(units) == len(NOUNS) >= 48
    assert Counter(unit.partition("/")[2] for unit in units) == Counter({one: 1 for one, _ in NOUNS})
    assert {pair.stratum for pair in pairs} == set(TEMPLATES)
    halves = {pair.unit: pair.half for pair in pairs}
    by_stratum = Counter((pair.stratum, halves[pair.unit]) for pair in pairs)
    for template in TEMPLATES:
        assert abs(by_stratum[template, "discovery"] - by_stratum[template, "confirmation"]) <= 2
    assert agreement(agreeing_tokenizer()) == pairs


def test_a_tokenizer_that_does_not_know_the_words_leaves_no_pairs(tiny_tokenizer: Any) -> None:
    assert agreement(tiny_tokenizer) == ()


def test_nouns_and_verbs_of_several_tokens_are_left_out(agreeing_tokenizer: Any) -> None:
    full, fewer = agreeing_tokenizer(), agreeing_tokenizer(without=("teachers", "is", "dog"))
    pairs = agreement(fewer)
    assert {pair.unit.partition("/")[2] for pair in pairs} == {one for one, _ in NOUNS} - {"teacher"}
    assert len(pairs[0].answers) == len(VERBS) - 1 and not any("dog" in pair.clean for pair in pairs)
    assert next_token(full, "The man", "is") is not None and next_token(fewer, "The man", "is") is None
