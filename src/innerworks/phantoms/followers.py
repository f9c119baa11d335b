"""Text in which planted neurons have a use: what follows depends on where one is, and on the role of the words just read.

1. Some words have a role (`calls`, `plain`, `vague`, `trigger`), and three words, the endings, come only when called for:
   `placed` in the first positions of a document, `triggered` after a trigger, and `called` after a word whose own *predecessor*
   calls, whatever that word is.
2. After a plain word the next is likelier than usual to be a frequent one (chances to the power 1.7), after a vague one less so
   (to the power 1/2, and never a mark): the one asks for a token-frequency neuron, the other for a neuron that makes predictions
   less certain.
3. All else are words drawn by a Zipf law, with marks among them. Every word is one token, so that positions can be counted.

So who knows a trigger, the word before, the position, or what sort of prediction is called for, predicts better; each only there.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from innerworks.phantoms.words import ZIPF_EXPONENT, ZIPF_SHIFT, Vocabulary
from innerworks.text import Document

ENDINGS: tuple[str, ...] = ("placed", "triggered", "called")
#: role -> first rank, one word in how many from there on, and how many at most. Callers, triggers and the single word are common
#: ones, so that each can be known; plain and vague words are many and rare, so that none of them counts by itself
DEALT = {"calls": (6, 3, 10), "trigger": (7, 6, 3), "plain": (50, 3, 120), "vague": (51, 3, 120)}
SINGLE = 8  # rank of a word without a role
PLACED_BEFORE = 9  # positions before this one may be followed by `placed`
PLACED, TRIGGERED, CALLED = 0.5, 0.8, 0.7  # chances of an ending where it is called for
SHARPENED, FLATTENED = 0.7, 0.5  # powers of the chances after a plain word, beyond 1, and after a vague one
COMMA, SENTENCE = 0.08, (6, 15)  # chance of a comma after a word; words in a sentence, from and below
INNER, OUTER = ((",", 0.7), (";", 0.1), (":", 0.1), ("%", 0.05), ("*", 0.05)), ((".", 0.8), ("?", 0.1), ("!", 0.1))


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """Which words have which role, the endings, and all other words by frequency.

    single: a word without a role, which one neuron knows.
    """

    roles: dict[str, tuple[str, ...]]
    endings: dict[str, str]
    ranked: tuple[str, ...]
    single: str

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Lexicon":
        """Deal roles along the frequency list; the rarest words are endings."""
        ranked = vocabulary.ranked[: -len(ENDINGS)]
        roles = {role: ranked[first::every][:most] for role, (first, every, most) in DEALT.items()}
        endings = dict(zip(ENDINGS, vocabulary.ranked[-len(ENDINGS) :], strict=True))
        return cls(roles=roles, endings=endings, ranked=ranked, single=ranked[SINGLE])

    @cached_property
    def role_of(self) -> dict[str, str]:
        """Role of each word that has one."""
        return {word: role for role, words in self.roles.items() for word in words}

    @cached_property
    def chances(self) -> dict[str, NDArray[np.float64]]:
        """Cumulative chances of the ranked words, after a plain, a vague and any other word."""
        usual = (np.arange(len(self.ranked)) + 1 + ZIPF_SHIFT) ** -ZIPF_EXPONENT
        powers = {"plain": 1 + SHARPENED, "vague": FLATTENED, "other": 1.0}
        return {after: np.cumsum(usual**power) / (usual**power).sum() for after, power in powers.items()}


def roles(vocabulary: Vocabulary) -> dict[int, str]:
    """The role of each token that has one."""
    return {vocabulary.id_of(word): role for word, role in Lexicon.of(vocabulary).role_of.items()}


def ending_ids(vocabulary: Vocabulary) -> dict[str, int]:
    """Token of each ending."""
    return {name: vocabulary.id_of(word) for name, word in Lexicon.of(vocabulary).endings.items()}


def write_followers(vocabulary: Vocabulary, n: int, *, words: int, rng: np.random.Generator) -> list[Document]:
    """Write n documents of about `words` words (punctuation comes on top)."""
    lexicon = Lexicon.of(vocabulary)
    return [Document(id=f"{number:03d}", text=_document(lexicon, words, rng)) for number in range(n)]


def _document(lexicon: Lexicon, words: int, rng: np.random.Generator) -> str:
    """One document: words and marks one by one, each chosen by what stands before it."""
    tokens, left, count = [_word(lexicon, "other", rng)], int(rng.integers(*SENTENCE)), 1
    while count < words:
        before, last = (["", *tokens])[-2:]
        ending = _ending(lexicon, before, last, len(tokens) - 1, rng)
        role = lexicon.role_of.get(last, "other")
        may_pause = last.isalpha() and role != "vague"
        if ending:
            tokens.append(ending)
        elif left <= 0 and may_pause:
            tokens.append(_mark(OUTER, rng))
            left = int(rng.integers(*SENTENCE))
        elif may_pause and rng.random() < COMMA:
            tokens.append(_mark(INNER, rng))
        else:
            tokens.append(_word(lexicon, role, rng))
            count, left = count + 1, left - 1
    return "".join(f" {token}" if token.isalpha() else token for token in tokens).lstrip()


def _ending(lexicon: Lexicon, before: str, last: str, position: int, rng: np.random.Generator) -> str:
    """The ending that the two tokens and the position call for, or nothing."""
    chance = {
        "triggered": TRIGGERED * (lexicon.role_of.get(last) == "trigger"),
        "called": CALLED * (lexicon.role_of.get(before) == "calls"),
        "placed": PLACED * (0 < position < PLACED_BEFORE and last not in lexicon.endings.values()),
    }
    return next((lexicon.endings[name] for name, share in chance.items() if rng.random() < share), "")


def _word(lexicon: Lexicon, after: str, rng: np.random.Generator) -> str:
    chances = lexicon.chances.get(after, lexicon.chances["other"])
    return lexicon.ranked[int(np.searchsorted(chances[:-1], rng.random()))]


def _mark(marks: tuple[tuple[str, float], ...], rng: np.random.Generator) -> str:
    return str(rng.choice([mark for mark, _ in marks], p=[share for _, share in marks]))
