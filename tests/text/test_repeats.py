"""Random sequences with one repeat: exactly the repeat that they say, and nothing else that could be predicted."""

from collections import Counter

import numpy as np
import pytest
import torch

from innerworks.errors import TextError
from innerworks.text import random_repeats
from innerworks.text.repeats import GAPS, LENGTH, SEGMENT, ordinary_tokens

VOCABULARY = list(range(1000, 1400))


@pytest.fixture(scope="module", params=[LENGTH, 64, 49])
def repeats(request):
    return random_repeats(VOCABULARY, 200, seed=0, longest=request.param)


def test_the_second_copy_lies_one_gap_after_the_first(repeats):
    for one in repeats:
        first = one.tokens[one.start : one.start + one.segment]
        assert one.tokens[one.start + one.gap : one.start + one.gap + one.segment] == first
        assert one.segment == min(one.gap, SEGMENT) == len(first)


def test_no_other_token_comes_twice(repeats):
    for one in repeats:
        twice = {token for token, count in Counter(one.tokens).items() if count == 2}
        assert twice == set(one.tokens[one.start : one.start + one.segment])
        assert max(Counter(one.tokens).values()) == 2


def test_gaps_and_starts_vary_within_their_bounds(repeats):
    length = len(repeats[0].tokens)
    assert all(len(one.tokens) == length for one in repeats)
    assert all(GAPS[0] <= one.gap <= min(GAPS[1], length - SEGMENT) for one in repeats)
    assert {one.gap for one in repeats} >= {GAPS[0], min(GAPS[1], length - SEGMENT)} or length == LENGTH
    assert len({one.gap for one in repeats}) >= min(60, length - SEGMENT - GAPS[0] + 1)
    assert len({one.start for one in repeats}) > 10


def test_tokens_come_from_the_vocabulary_and_all_of_it(repeats):
    seen = {token for one in repeats for token in one.tokens}
    assert seen == set(VOCABULARY)


def test_the_same_seed_gives_the_same_sequences_and_another_others():
    drawn = [random_repeats(VOCABULARY, 5, seed=seed) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1]
    assert all(a.tokens != b.tokens for a, b in zip(drawn[0], drawn[2], strict=True))


def test_the_global_random_state_is_left_alone():
    def state():
        return np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002

    before = state()
    random_repeats(VOCABULARY, 5, seed=0)
    assert state() == before


@pytest.mark.parametrize(
    ("vocabulary", "longest", "says"),
    [
        (VOCABULARY, 48, "reads 48 tokens at most; .* at least 49"),
        (VOCABULARY[:255], 200, "255 ordinary tokens; .* 128 need 256"),
    ],
)
def test_a_model_too_small_for_a_repeat_is_refused(vocabulary, longest, says):
    with pytest.raises(TextError, match=says):
        random_repeats(vocabulary, 1, seed=0, longest=longest)


def test_ordinary_tokens_are_visible_and_neither_special_nor_added():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "owl", "cat", " ", "\n", "\ufffd", "dog", "\u3000"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")),
        unk_token="<unk>",
        eos_token="<end>",
        additional_special_tokens=["<think>"],
    )
    tokenizer.add_tokens(["newword"])
    assert [tokenizer.decode([id]) for id in ordinary_tokens(tokenizer, vocab=100)] == ["owl", "cat", "dog"]
    assert ordinary_tokens(tokenizer, vocab=3) == [1, 2]  # no id that the model has no embedding for


@pytest.mark.specimen
def test_the_specimens_special_and_blank_tokens_are_never_drawn(specimen):
    ordinary = ordinary_tokens(specimen.tokenizer, specimen.anatomy.vocab)
    texts = [specimen.tokenizer.decode([id]) for id in ordinary]
    assert len(ordinary) > 45_000
    assert not set(ordinary) & set(specimen.tokenizer.all_special_ids)
    assert all(text.strip() and "\ufffd" not in text and not text.startswith("<|") for text in texts)
