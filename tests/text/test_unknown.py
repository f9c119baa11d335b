"""Words that a tokenizer does not know, also where it opens texts with its unknown token, as OPT does."""

from collections.abc import Callable
from typing import Any

import pytest

from innerworks.heads.circuits import ordinals
from innerworks.neurons.knowledge.facts import RELATIONS, facts
from innerworks.text.tasks import agreement
from innerworks.text.tasks.agreement import BETWEEN, NOUNS, TEMPLATES, VERBS
from innerworks.text.tasks.concepts import examples, known
from innerworks.text.tasks.pairs import encoded, unknown

Make = Callable[..., Any]


@pytest.mark.parametrize("opening", [None, "<end>"])
@pytest.mark.parametrize("stands_for_others", ["<unk>", "<end>"])
def test_a_word_is_unknown_by_itself_and_not_by_the_opening(
    tokenizer_of: Make, opening: str | None, stands_for_others: str
) -> None:
    tokenizer = tokenizer_of(opening=opening, unknown=stands_for_others)
    assert not unknown(tokenizer, encoded(tokenizer, "the cat sat"))
    assert unknown(tokenizer, encoded(tokenizer, "the zebra sat"))
    assert unknown(tokenizer, encoded(tokenizer, "zebra sat"))


def _words() -> set[str]:
    texts = [whole for one in examples(frames=1) for _, whole in one.sentences]
    texts += [
        f"{way.format(subject)} {answer}" for one in RELATIONS.values() for way in one.ways for subject, answer in one.facts
    ]
    texts += [template.format(subject="", between="") for some in TEMPLATES.values() for template in some]
    texts += [word for both in (*NOUNS, *BETWEEN, *VERBS) for word in both]
    texts += [word for members, _ in ordinals.CLASSES.values() for word in members]
    return {"a", *(word for text in texts for word in text.split())}


def test_tasks_are_the_same_where_the_opening_is_the_unknown_token(tokenizer_of: Make) -> None:
    words = sorted(_words() - {"teachers", "dogs", "Paris", "Tuesday"})
    usual, opt = (tokenizer_of(opening="<end>", unknown=one, words=words) for one in ("<unk>", "<end>"))
    assert agreement(opt) == agreement(usual) and len(agreement(opt)) > 100
    assert known(opt, examples(frames=1)) == known(usual, examples(frames=1)) != examples(frames=1)
    assert facts(opt) == facts(usual) and len(facts(opt)) > 50 and "France (capital)" not in {one.name for one in facts(opt)}
    kept, _ = ordinals.classes(usual)
    assert ordinals.rows(opt, kept) == ordinals.rows(usual, kept) != ()
