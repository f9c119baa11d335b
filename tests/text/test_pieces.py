"""Pieces of words, read off the characters that tokens cover."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from innerworks.text.pieces import kind_of_each_token, word_of_each_character, word_of_each_token


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("an owl", [0, 0, None, 1, 1, 1]),
        ("It's", [0, 0, 1, 2]),
        ("ab12cd", [0, 0, 1, 1, 2, 2]),
        ("3.14", [0, 1, 2, 2]),
        ("!?", [0, 1]),
        ("a_b", [0, 1, 2]),
        ("a-b\n c", [0, 1, 2, None, None, 3]),
        ("Käuzchen", [0] * 8),
        ("Ka\u0308se", [0] * 5),  # a combining mark belongs to its word
        ("हिन्दी है", [0] * 6 + [None, 1, 1]),
        ("猫頭鷹。鳥", [0, 0, 0, 1, 2]),
        ("½x", [0, 1]),
        ("\u00a0a\u3000", [None, 0, None]),
        ("", []),
        (" \t\n", [None] * 3),
    ],
)
def test_words_are_runs_of_letters_runs_of_digits_and_single_signs(text, words):
    assert word_of_each_character(text) == words


@pytest.mark.parametrize(
    ("text", "offsets", "words"),
    [
        ("an owlet", [(0, 2), (2, 6), (6, 8)], [0, 1, 1]),  # GPT-2 puts the blank into the token that follows
        ("an owlet", [(0, 2), (3, 6), (6, 8)], [0, 1, 1]),
        ("an owl", [(0, 0), (0, 2), (2, 3), (3, 6), (6, 6)], [None, 0, None, 1, None]),  # special tokens and blanks
        ("a\n\nb", [(0, 1), (1, 3), (3, 4)], [0, None, 1]),
        ("猫", [(0, 1), (0, 1), (0, 1)], [0, 0, 0]),  # three bytes of one character
        ("x).", [(0, 1), (1, 3)], [0, 1]),  # a token over two words belongs to the first
        ("12345", [(0, 1), (1, 2), (2, 5)], [0, 0, 0]),
        ("co-op", [(0, 2), (2, 3), (3, 5)], [0, 1, 2]),
        ("", [], []),
    ],
)
def test_a_token_belongs_to_the_word_of_its_first_visible_character(text, offsets, words):
    assert word_of_each_token(text, offsets) == words


def test_pieces_of_a_real_fast_tokenizer_share_their_word():
    pieces = ["[UNK]", "owl", "##et", "##s", "the", "un", "##common", ".", "2", "##4"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    encoded = PreTrainedTokenizerFast(tokenizer_object=tokenizer)("the uncommon owlets. 24", return_offsets_mapping=True)
    found = word_of_each_token("the uncommon owlets. 24", encoded["offset_mapping"])
    assert found == [0, 1, 1, 2, 2, 2, 3, 4, 4]


@pytest.mark.parametrize(
    ("text", "offsets", "kinds"),
    [
        ("an owl, 12", [(0, 2), (2, 6), (6, 7), (7, 10)], ["letter", "letter", "other", "digit"]),
        ("an owl", [(0, 0), (0, 2), (2, 3), (3, 6), (6, 6)], [None, "letter", None, "letter", None]),
        ("x).1", [(0, 2), (2, 4)], ["letter", "other"]),  # what its first visible character is
        ("\n\n(a", [(0, 2), (2, 4)], [None, "other"]),
        ("猫。é½", [(0, 1), (0, 1), (1, 2), (2, 3), (3, 4)], ["letter", "letter", "other", "letter", "digit"]),
        ("a\u0308 +€", [(0, 1), (1, 2), (2, 4), (4, 5)], ["letter", "letter", "other", "other"]),
        ("", [], []),
    ],
)
def test_the_kind_of_a_token_is_that_of_its_first_visible_character(text, offsets, kinds):
    assert kind_of_each_token(text, offsets) == kinds


@pytest.mark.specimen
def test_the_specimens_pieces_share_their_word(specimen):
    text = "An unforgettable Käuzchen, 猫頭鷹, cost 1234 €."
    encoded = specimen.tokenizer(text, return_offsets_mapping=True)
    pieces = {}
    words = word_of_each_token(text, encoded["offset_mapping"])
    for word, (start, end) in zip(words, encoded["offset_mapping"], strict=True):
        pieces.setdefault(word, set()).update(range(start, end))
    pieces.pop(None, None)
    spelled = ["".join(text[i] for i in sorted(pieces[word])).strip() for word in sorted(pieces)]
    assert spelled == ["An", "unforgettable", "Käuzchen", ",", "猫頭鷹", ",", "cost", "1234", "€", "."]
