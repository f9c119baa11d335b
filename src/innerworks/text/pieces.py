"""Which tokens are pieces of one word? Read off the characters each token covers, for any tokenizer that knows them.

A word is a run of letters (with marks), a run of digits, or any other single visible character; white space belongs to none.
"""

import unicodedata
from collections.abc import Sequence


def word_of_each_character(text: str) -> list[int | None]:
    """Number the words of a text from 0; white space has none."""
    words: list[int | None] = []
    number, before = -1, ""
    for character in text:
        kind = _kind(character)
        if kind == "space":
            words.append(None)
        else:
            number += kind != before or kind == "other"
            words.append(number)
        before = kind
    return words


def kind_of_each_token(text: str, offsets: Sequence[tuple[int, int]]) -> list[str | None]:
    """What each token's first visible character is: letter, digit or other (a mark); None for special tokens and blanks.

    >>> kind_of_each_token("ab, 1", [(0, 2), (2, 3), (3, 5)])
    ['letter', 'other', 'digit']
    """
    kinds = (next((kind for kind in map(_kind, text[start:end]) if kind != "space"), None) for start, end in offsets)
    return list(kinds)


def word_of_each_token(text: str, offsets: Sequence[tuple[int, int]]) -> list[int | None]:
    """The word that each token belongs to: that of its first visible character; None for special tokens and blanks.

    >>> word_of_each_token("an owlet", [(0, 2), (2, 6), (6, 8)])
    [0, 1, 1]
    """
    of_character = word_of_each_character(text)
    found = []
    for start, end in offsets:
        visible = (word for word in of_character[start:end] if word is not None)
        found.append(next(visible, None))
    return found


def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace():
        return "space"
    if category[0] in "LM":
        return "letter"
    return "digit" if category[0] == "N" else "other"
