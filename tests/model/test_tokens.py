"""Text in: special tokens and chat templates are the tokenizer's own, unless asked for; texts are padded behind and masked."""

import copy

import pytest
import torch
from torch import testing

import innerworks as iw
from innerworks.errors import UsageError
from innerworks.model.tokens import tokenize

CPU = torch.device("cpu")
THE, CAT, SAT, END = 2, 14, 17, 1
TEMPLATE = "{{ bos_token }} {% for message in messages %}the {{ message['content'] }} . {% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}dog{% endif %}"


@pytest.fixture
def plain(tiny_tokenizer):
    """A tokenizer with a BOS token that it does not put in front (as GPT-2's)."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.bos_token = "<end>"
    return tokenizer


@pytest.fixture
def opening(opening_tokenizer):
    """A tokenizer that puts its BOS token in front (as Llama's)."""
    tokenizer = copy.deepcopy(opening_tokenizer)
    tokenizer.bos_token = "<end>"
    return tokenizer


def ids(tokenizer, texts, *, bos=None, chat=False):
    tokens, mask = tokenize(tokenizer, texts, bos=bos, chat=chat, device=CPU)
    return [row[seen].tolist() for row, seen in zip(tokens, mask, strict=True)]


def test_special_tokens_are_left_to_the_tokenizer(plain, opening):
    assert ids(plain, "the cat sat") == [[THE, CAT, SAT]]
    assert ids(opening, "the cat sat") == [[END, THE, CAT, SAT]]


def test_a_bos_token_is_put_in_front_once_or_taken_away(plain, opening):
    for tokenizer in (plain, opening):
        assert ids(tokenizer, "the cat sat", bos=True) == [[END, THE, CAT, SAT]]
        assert ids(tokenizer, "the cat sat", bos=False) == [[THE, CAT, SAT]]
    assert ids(plain, "<end> the cat", bos=True) == [[END, THE, CAT]]


def test_without_a_bos_token_there_is_none_to_put_and_none_to_take(tiny_tokenizer):
    with pytest.raises(UsageError, match="has no BOS token"):
        ids(tiny_tokenizer, "the cat", bos=True)
    assert ids(tiny_tokenizer, "the cat", bos=False) == ids(tiny_tokenizer, "the cat") == [[THE, CAT]]


def test_a_chat_template_is_applied_when_asked_for_and_only_then(opening):
    opening.chat_template = TEMPLATE
    dog, stop = opening.convert_tokens_to_ids(["dog", "."])
    assert ids(opening, "cat") == [[END, CAT]]
    assert ids(opening, "cat", chat=True) == [[END, THE, CAT, stop, dog]]  # the template's BOS, and no second one
    assert ids(opening, "cat", chat=True, bos=True) == [[END, THE, CAT, stop, dog]]
    assert ids(opening, "cat", chat=True, bos=False) == [[THE, CAT, stop, dog]]
    assert ids(opening, ["cat", "cat sat"], chat=True) == [[END, THE, CAT, stop, dog], [END, THE, CAT, SAT, stop, dog]]


def test_without_a_template_there_is_no_chat(plain):
    with pytest.raises(UsageError, match="no chat template: it does not belong to an instruct model"):
        ids(plain, "the cat", chat=True)


def test_texts_are_padded_behind_and_masked(tiny_tokenizer):
    tokens, mask = tokenize(tiny_tokenizer, ["the cat", "the cat sat", "sat"], bos=None, chat=False, device=CPU)
    assert tokens.shape == mask.shape == (3, 3) and mask.dtype == torch.bool
    assert mask.tolist() == [[True, True, False], [True, True, True], [True, False, False]]
    assert tokens[mask].tolist() == [THE, CAT, THE, CAT, SAT, SAT]
    other = copy.deepcopy(tiny_tokenizer)
    other.padding_side = "left"  # nothing depends on it
    assert torch.equal(tokens, tokenize(other, ["the cat", "the cat sat", "sat"], bos=None, chat=False, device=CPU)[0])


@pytest.mark.parametrize(("texts", "says"), [([], "an empty list"), ("", "''"), (["the cat", ""], "''")])
def test_texts_without_a_token_are_refused(tiny_tokenizer, texts, says):
    with pytest.raises(UsageError, match=f"There is no token in {says}"):
        ids(tiny_tokenizer, texts)


def test_an_empty_text_with_a_bos_token_is_that_token(opening):
    assert ids(opening, "") == [[END]]
    with pytest.raises(UsageError, match="no token"):
        ids(opening, "", bos=False)


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom", "gemma3"])
def test_texts_of_a_batch_run_as_they_run_alone(tiny_model, family):
    model, texts = tiny_model(family), ["the cat sat on the mat .", "a dog ran", "the old owl saw a red sun and sat"]
    together = model.run(texts, logits="last")
    for row, text in enumerate(texts):
        tokens, mask = model.tokenize(text)
        assert mask.all() and torch.equal(together.tokens[row][together.mask[row]], tokens[0])
        testing.assert_close(together.logits[row], model.run(text, logits="last").logits[0], atol=1e-5, rtol=1e-5)


def test_without_a_tokenizer_text_is_refused(tiny_hf):
    model = iw.Model(tiny_hf("llama"), None, certified=False)
    with pytest.raises(UsageError, match="was wrapped without a tokenizer"):
        model.run("the cat sat")


def test_a_model_tokenizes_as_asked(tiny_hf, opening):
    model = iw.Model(tiny_hf("llama"), opening, certified=False)
    assert model.tokenize("the cat")[0].tolist() == [[END, THE, CAT]]
    assert model.tokenize("the cat", bos=False)[0].tolist() == [[THE, CAT]]
    with pytest.raises(UsageError, match="no chat template"):
        model.tokenize("the cat", chat=True)
